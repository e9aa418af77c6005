"""Pages in Chromium, by its debugging protocol: how they look at a width, in light or dark."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import aiohttp

MISSING = shutil.which("chromium") is None

_FAULTS = """() => {
  const shown = [], faults = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode, range = document.createRange(), element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    range.selectNodeContents(node);
    let box = element, scrolls = null;
    while (box && !scrolls) { if (box.matches('.wide')) scrolls = box; box = box.parentElement; }
    for (const at of range.getClientRects()) {
      if (at.width * at.height == 0) continue;
      const text = node.data.trim().slice(0, 40);
      if (!scrolls && (at.right > innerWidth + 1 || at.left < -1)) faults.push('cut: ' + text);
      if (scrolls && at.right > scrolls.getBoundingClientRect().right + 1
          && !getComputedStyle(scrolls, '::before').content.includes('sideways')
          && !scrolls.matches('.picture')) faults.push('cut without a hint: ' + text);
      const within = scrolls ? scrolls.getBoundingClientRect() : {top: -1e9, bottom: 1e9, left: -1e9, right: 1e9};
      const inside = {
        left: Math.max(at.left, within.left), right: Math.min(at.right, within.right),
        top: Math.max(at.top, within.top), bottom: Math.min(at.bottom, within.bottom), height: at.height,
      };
      shown.push([inside, text, element]);
    }
  }
  for (let i = 0; i < shown.length; i++) for (let j = i + 1; j < shown.length; j++) {
    const [a, one, mine] = shown[i], [b, other, its] = shown[j];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 2 && high > Math.min(a.height, b.height) / 2) faults.push(`over each other: ${one} | ${other}`);
  }
  if (document.documentElement.scrollWidth > innerWidth + 1)
    faults.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  const luminance = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
  };
  for (const element of new Set(shown.map(([, , element]) => element))) {
    let behind = element;
    const clear = one => /(, 0\\)|transparent)$/.test(getComputedStyle(one).backgroundColor);
    while (behind && clear(behind)) behind = behind.parentElement;
    const back = luminance(getComputedStyle(behind || document.body).backgroundColor);
    const text = luminance(getComputedStyle(element).color);
    const contrast = (Math.max(back, text) + .05) / (Math.min(back, text) + .05);
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${element.textContent.slice(0, 40)}`);
  }
  // charts, whose letters are shapes: each as if it stood alone
  for (const image of document.querySelectorAll('img')) {
    if (!image.currentSrc.startsWith('data:image/svg') || !image.checkVisibility()) continue;
    const host = document.body.appendChild(document.createElement('div')), within = host.attachShadow({mode: 'open'});
    host.style = `position: absolute; left: 0; top: 0; width: ${image.getBoundingClientRect().width}px`;
    const bytes = Uint8Array.from(atob(image.currentSrc.split(',')[1]), one => one.charCodeAt(0));
    within.innerHTML = new TextDecoder().decode(bytes).replace(/^[^]*?<svg/, '<svg style="width: 100%; height: auto"');
    const frame = within.querySelector('svg').getBoundingClientRect(), texts = [];
    const cells = [...within.querySelectorAll('image')].map(one => one.getBoundingClientRect());
    const over = (a, b) => Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left),
      Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
    for (const written of within.querySelectorAll('g[id^=text_]')) {
      const comment = [...written.childNodes].find(one => one.nodeType == 8), at = written.getBoundingClientRect();
      const text = 'chart: ' + (comment ? comment.data.trim() : '?').slice(0, 40), letters = written.querySelector('g');
      if (!letters || at.width * at.height == 0) continue;
      const beyond = [frame.left - at.left, at.right - frame.right, frame.top - at.top, at.bottom - frame.bottom];
      if (Math.max(...beyond) > 1) faults.push('cut: ' + text);
      const turned = /rotate[(](-?[0-9.]+)[)]/.exec(letters.getAttribute('transform'));
      if (!turned || Math.abs(turned[1]) % 90 == 0) texts.push([at, text]);
      if (cells.some(cell => over(cell, at) > 0)) continue;  // numbers on cells
      const back = luminance(getComputedStyle(document.body).backgroundColor);
      const ink = luminance(getComputedStyle(letters).fill);
      const contrast = (Math.max(back, ink) + .05) / (Math.min(back, ink) + .05);
      if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${text}`);
    }
    for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++)
      if (over(texts[i][0], texts[j][0]) > 1.5) faults.push(`over each other: ${texts[i][1]} | ${texts[j][1]}`);
    host.remove();
  }
  return faults;
}"""


def faults(page: Path, *, width: int, dark: bool, unfolded: bool = True, picture: Path | None = None) -> list[str]:
    """What is wrong with the texts of a page: cut, over each other, or hard to tell from what is behind.

    Args:
        page: File of the page.
        width: Of the window, in px.
        dark: Whether the reader's system is dark.
        unfolded: Whether everything that is folded is opened before.
        picture: File to write a picture of the whole page to.
    """
    return asyncio.run(_faults(page, width, dark, unfolded, picture))


async def _faults(page: Path, width: int, dark: bool, unfolded: bool, picture: Path | None) -> list[str]:
    profile = tempfile.mkdtemp()
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        said = next(found for line in process.stderr if (found := re.search(r"ws://([\w.]+:\d+)/", line)))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{said.group(1)}/json/list") as answer:
                (target,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                return await _look(Tab(socket), page, width, dark, unfolded, picture)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


class Tab:
    """A tab of the browser, and what it is asked."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.number = socket, 0

    async def ask(self, method: str, **parameters: object) -> dict:
        """The browser's answer; events between are passed over."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            answer = json.loads((await self.socket.receive()).data)
            if answer.get("id") == self.number:
                return answer["result"]

    async def evaluate(self, expression: str) -> object:
        """The value of an expression in the page."""
        answer = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


async def _look(tab: Tab, page: Path, width: int, dark: bool, unfolded: bool, picture: Path | None) -> list[str]:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    await tab.ask("Emulation.setEmulatedMedia", features=scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    await tab.ask("Emulation.setDeviceMetricsOverride", **size)
    await tab.ask("Page.navigate", url=page.absolute().as_uri())
    while await tab.evaluate("location.protocol + document.readyState") != "file:complete":
        await asyncio.sleep(0.1)
    if unfolded:
        await tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    if picture is not None:
        height = await tab.evaluate("document.documentElement.scrollHeight")
        whole = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await tab.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=whole)
        picture.write_bytes(base64.b64decode(shot["data"]))
    found = await tab.evaluate(f"({_FAULTS})()")
    assert isinstance(found, list)
    return found
