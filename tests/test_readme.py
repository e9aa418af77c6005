"""README.md's second chapter, command by command, on small made-up photographs: from a workbook to a sentence."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import timm
import torch
from PIL import Image

from raycsr.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
SMALL = {  # what makes a walk of seconds of the minutes that README's takes
    "show": "--input_size 16",
    "train": "--model.input_size 16 --training.epochs 8 --training.precision fp32 --validation.n0 8",
    "sample": "--sampling.n0 16 --sampling.n 256 --sampling.batch_size 64 --sampling.precision fp32 "
    "--pool.threads_per_actor 1",
    "report": "",
    "predict": "--n 256",
}


def commands():
    """README's commands of the chapter, each as a list of words without `raycsr`."""
    block = re.search(r"```sh\n# your images\n(.*?)```", README, re.DOTALL).group(1)
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines()]


def table():
    """README's spreadsheet: rows of cells."""
    lines = re.findall(r"^\|.*\|$", README.split("## Your folder of images")[1].split("```sh")[0], re.MULTILINE)
    rows = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the chapter begins with: 48 photographs of spots, the larger and darker the worse, and two files."""
    monkeypatch.chdir(tmp_path)
    header, *rows = table()
    book = openpyxl.Workbook()
    book.active.append(["", *header[1:]])
    for name, *costs in rows:
        book.active.append([name, *map(float, costs)])
    book.save("costs.xlsx")
    generator = np.random.default_rng(0)
    for k, name in enumerate(header[1:]):
        for i in range(16):
            path = Path("photos", "train" if i % 2 else "test", name, f"IMG_{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            spot(k, generator).save(path)
    spot(2, generator).save("photos/new.jpg")
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18").state_dict(), "resnet18.pth")
    return tmp_path


def spot(k, generator):
    y, x = np.mgrid[:48, :64]
    inside = ((y - 24) ** 2 + (x - 32) ** 2 < (8 + 5 * k) ** 2)[..., None]
    pixels = np.where(inside, [130 - 60 * k, 60, 50], [220, 180, 160]) + generator.normal(0, 8, (48, 64, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_five_commands_go_from_a_folder_and_a_workbook_to_the_sentence(folder, capsys):
    assert [words[0] for words in commands()] == list(SMALL)
    printed = {}
    for words in commands():
        assert main([*words, *SMALL[words[0]].split()]) == 0
        printed[words[0]] = capsys.readouterr().out
    assert (folder / "show" / "show.html").exists()
    report = printed["report"]
    assert re.search(r"on \d of 8 images of malignant melanoma", report)
    assert "no change of the 16 x 16 picture of L2 size up to 0.25 makes the smoothed classifier answer" in report
    assert "provably answered rightly" in report and "left to a person" in report
    assert report.index("left to a person") < report.index("What this stands on")
    assert (folder / "report" / "report.html").exists()
    answer = json.loads(printed["predict"])
    assert answer["error"] is None and set(answer["radius_if"]) == {"malignant melanoma"}
