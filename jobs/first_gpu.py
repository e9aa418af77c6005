"""All that a first GPU is asked, the worth most first, within minutes: tests, then figures.

    PYTHONPATH=. python jobs/first_gpu.py --out figures.json [--seconds 450] [--only resnet50 ...] [--quick]

It needs torch, timm, pandas, scipy, pyarrow, boto3 and pytest, and neither Ray nor an installation. Each step is
written down as it ends, one that fails is one line, and one for which there is no time is left out by name. Without a
GPU, or with --quick, all of it runs on tiny networks, which proves the script and measures nothing.
"""

import argparse
import functools
import io
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from jobs.bench_denoised import SMALL, seconds_of
from jobs.bench_engine import SIGMA, bare_passes, clock, in_turns, noise, usual_loop
from raycsr.certification import Statements, looks
from raycsr.data.decode import decode_images
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import arithmetic, prepare_for_inference, resolve_precision
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.feeder import Feeder
from raycsr.smoothing.options import CHUNK, Draws

Rows = list[dict[str, Any]]

# those that a GPU can fail; a network of any kind is held against what a graph can hold without one
TESTS = (
    "tests/smoothing/test_forward_pass.py",
    "tests/smoothing/test_lattice_kernel.py",
    "tests/models/test_fp8.py",
    "-k",
    "not of_any_network",
)
RADIUS, ALPHA, IMAGENET = 0.5, 0.001, 50_000
# Shares of the class that is said, of the published ResNet-50 of ImageNet at sigma .5 (Cohen et al. 2019), in tenths of
# the images on which it is right or abstains, 74 %, and of those on which it is wrong.
RIGHT = (0.5, 0.5, 0.584, 0.761, 0.96, 0.993, 0.999, 1.0, 1.0, 1.0)
WRONG = (0.531, 0.608, 0.673, 0.714, 0.785, 0.839, 0.926, 0.969, 0.993, 0.999)
RIGHT_SHARE = 0.736
GREY, APART = 20, 11  # grey level of an image of the first share, and how far that of the next is


class Measured:
    """What the steps share: the device, whether it is a rehearsal, and the seconds of one contender."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        """Takes what all steps are told."""
        self.device, self.quick, self.seconds = device, quick, 0.02 if quick else 1.5

    def network(self, name: str, size: int, rows: int, *, precision: str = "auto") -> BaseClassifier:
        """A network of random weights, made fast as an actor does; a small one in a rehearsal."""
        if self.quick:
            name, size = ("test_vit", 32) if name.startswith("vit") else ("cifar_resnet8", 16)
        base = load_base_classifier(ModelOptions(name, input_size=size), num_classes=10 if "cifar" in name else 1000)
        if not self.quick:
            try:
                return self._begun(self.prepared(base, precision, compile=True), rows)
            except (
                Exception
            ) as error:  # of the compiler, which is new to a device: figures without it are better than none
                print(f"{name} is not compiled: {type(error).__name__}: {str(error)[:300]}", flush=True)
        return self._begun(self.prepared(base, precision, compile=False), rows)

    @torch.inference_mode()
    def _begun(self, network: BaseClassifier, rows: int) -> BaseClassifier:
        """A network that has compiled what there is to."""
        pixels = torch.zeros((rows, 3, *network.preprocessing.input_size), device=self.device)
        with arithmetic(network.precision, self.device):
            network(pixels.contiguous(memory_format=torch.channels_last))
        return network

    def prepared(self, base: BaseClassifier, precision: str = "auto", *, compile: bool) -> BaseClassifier:
        """A network on the device."""
        meant = resolve_precision(precision, self.device)
        return prepare_for_inference(base, precision=meant, device=self.device, compile=compile)

    def rows(self, rows: int) -> int:
        """Rows of a pass."""
        return 32 if self.quick else rows


def tests(measured: Measured) -> Rows:
    """The tests that need a GPU, in a process of their own: what breaks a device breaks no figure."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *TESTS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    lines = found.stdout.strip().splitlines()
    return [{"what": line} for line in lines if line.startswith(("FAILED", "ERROR"))] + [
        {"what": lines[-1] if lines else found.stderr[-500:], "status": found.returncode}
    ]


def engine(name: str, size: int, rows: int, measured: Measured, *, precision: str = "auto") -> Rows:
    """Engine beside the bare passes of the same compiled network, in turns, at a fixed n."""
    rows = measured.rows(rows)
    return _engine(measured, measured.network(name, size, rows, precision=precision), rows)


def _engine(measured: Measured, network: BaseClassifier, rows: int) -> Rows:
    device, (height, width) = measured.device, network.preprocessing.input_size
    pixels = torch.rand((rows, 3, height, width), device=device).contiguous(memory_format=torch.channels_last)
    found = _alike(network, pixels)
    one_pass = bare_passes(network, pixels, rows)
    one_pass()
    start = clock(device)
    one_pass()
    passes = 4 * max(-(-2 * CHUNK // rows), int(measured.seconds / max(clock(device) - start, 1e-6) / 4))
    n = passes * rows // 4  # of each of four images
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, height, width), dtype=torch.uint8, generator=generator)
    sampler = Sampler(network, Draws(SIGMA, CHUNK, n - CHUNK, batch_size=rows), device=device)
    contenders = {
        "bare": lambda: [one_pass() for _ in range(passes)],
        "engine": lambda: list(sampler.sample(Request(image, str(i)) for i, image in enumerate(images))),
    }
    seconds = in_turns(contenders, device)
    for what in contenders:
        rate = passes * rows / seconds[what]
        found.append({"what": what, "samples_per_second": rate, "ratio": seconds["bare"] / seconds[what], "rows": rows})
    compiled = network._compiled_call_impl is not None
    found[-1] |= {"in": network.precision, "compiled": compiled, "graph": sampler._pass._graph is not None}
    return found


@torch.inference_mode()
def _alike(network: BaseClassifier, pixels: torch.Tensor) -> Rows:
    """Share of rows whose logits are the same to the last bit at another place of the pass, and when asked again."""
    with arithmetic(network.precision, pixels.device):
        first = network(pixels)
        moved = network(pixels.roll(len(pixels) // 2 + 1, 0).contiguous(memory_format=torch.channels_last))
        again = network(pixels)
    moved = moved.roll(-(len(pixels) // 2 + 1), 0)
    return [
        {"what": f"rows equal to the last bit {when}", "ratio": (first == other).all(dim=1).float().mean().item()}
        for when, other in (("at another place", moved), ("again", again))
    ]


def resnet50(measured: Measured) -> Rows:
    """Engine and usual loop, then what stops by itself: fed from memory, and from photographs that are decoded."""
    size, rows = 16 if measured.quick else 224, measured.rows(512)
    network = measured.network("resnet50", 224, rows)
    found = _engine(measured, network, rows)
    rate, bare = found[-1]["samples_per_second"], found[-2]["samples_per_second"]
    image = torch.rand((3, size, size), device=measured.device)
    usual = load_base_classifier(ModelOptions("cifar_resnet8" if measured.quick else "resnet50", input_size=size))
    usual.to(measured.device)
    n = 2 * rows if measured.quick else 2048
    for what, tf32 in (("usual loop, strict fp32", False), ("usual loop, PyTorch's default", True)):
        torch.backends.cudnn.allow_tf32 = tf32
        seconds = in_turns({what: functools.partial(usual_loop, usual, image, n, rows)}, measured.device)[what]
        found.append({"what": what, "samples_per_second": n / seconds, "engine_over_it": rate * seconds / n})
    for decodes in (False, True):
        found.append(_fed(measured, network, rows, bare, decodes=decodes))
    return found


class ByShares(nn.Module):
    """A network's pass, and then votes by the share that an image's brightness names, for a class of two."""

    shares: torch.Tensor

    def __init__(self, network: BaseClassifier) -> None:
        """Takes the network, whose logits count for nothing."""
        super().__init__()
        self.network, self.precision = network, network.precision
        self.register_buffer("shares", torch.tensor(RIGHT + WRONG, device=network.scale.device))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps pixels to logits (N, 2)."""
        idle = 0 * self.network(pixels)[:, :1].float()
        corner = (pixels[:, :, :64, :64] * 255).mean(dim=(1, 2, 3))
        which = ((corner - GREY) / APART).round().clamp(0, len(self.shares) - 1).long()
        evenly = (pixels[:, :, :8, :8] * 255).round().sum(dim=(1, 2, 3)).remainder(256) / 256
        says = (evenly < self.shares[which]).float()[:, None]
        return torch.cat([says, 1 - says], dim=1) + idle


def _fed(measured: Measured, network: BaseClassifier, rows: int, bare: float, *, decodes: bool) -> dict[str, Any]:
    """The feeder with four blocks at once, as actors have them, of images that stop where published ones would."""
    size = network.preprocessing.input_size[0]
    images = 16 if measured.quick else int(bare * 16 / 204 / 256 + 1) * 256  # about 16 s
    of_a_block = 4 if measured.quick else 128
    which = np.random.default_rng(0).integers(10, size=images)
    which += 10 * (np.random.default_rng(1).random(images) > RIGHT_SHARE)
    n = 640 if measured.quick else 10_048
    what = Statements([], [RADIUS], sigma=SIGMA, alpha=ALPHA, n=n)
    draws = Draws(SIGMA, CHUNK, n, batch_size=rows)
    sampler = Sampler(
        ByShares(network), draws, device=measured.device, checks=looks(n, CHUNK), enough=what.rows_are_decided
    )
    feeder, blocks = Feeder(sampler), [range(i, min(i + of_a_block, images)) for i in range(0, images, of_a_block)]

    def one_block(rows_of: range, pixels: Future[np.ndarray]) -> int:
        made = pixels.result()
        requests = (
            Request(torch.from_numpy(made[k]).permute(2, 0, 1), str(i), int(which[i] >= 10))
            for k, i in enumerate(rows_of)
        )
        with feeder.counting(requests, len(rows_of), rows) as done:
            return sum(counted.drawn for counted, _ in done)

    make = _decoded if decodes else _drawn
    workers = 1 if measured.quick else 12
    with (
        ProcessPoolExecutor(workers, get_context("spawn")) if decodes else ThreadPoolExecutor(1) as makers,
        ThreadPoolExecutor(4) as threads,
    ):
        list(makers.map(make, [([0], size)] * workers))  # begins the processes
        one_block(range(1), makers.submit(make, ([int(which[0])], size)))  # compiles
        passes, run = [0], sampler._pass.run

        def counted_run(*args: Any) -> None:
            passes[0] += 1
            run(*args)

        sampler._pass.run = counted_run  # type: ignore[method-assign, assignment]
        if not decodes:
            made = [makers.submit(make, (which[block].tolist(), size)) for block in blocks]
            wait(made)
        start, host = time.perf_counter(), time.process_time()
        if decodes:
            made = [makers.submit(make, (which[block].tolist(), size)) for block in blocks]
        samples = sum(threads.map(one_block, blocks, made))
        seconds, host = time.perf_counter() - start, time.process_time() - host
    return {
        "what": f"images that stop by themselves, {'decoded beside it' if decodes else 'from memory'}",
        "images": images,
        "samples_an_image": samples / images,
        "rows_used": samples / (passes[0] * rows),
        "samples_per_second": samples / seconds,
        "ratio": samples / seconds / bare,
        "cores_of_the_host": host / seconds,
        "hours_of_imagenet": IMAGENET / (images / seconds) / 3600,
    }


def _drawn(what: tuple[Sequence[int], int]) -> np.ndarray:
    """Images of the brightness of their shares, a little uneven; uint8 (N, size, size, 3)."""
    which, size = what
    noise = np.random.default_rng(0).integers(-3, 4, (size, size, 3))
    return np.stack([GREY + APART * one + noise for one in which]).clip(0, 255).astype(np.uint8)


def _decoded(what: tuple[Sequence[int], int]) -> np.ndarray:
    """The same of photographs of 500 x 375 pixels, which are written and decoded."""
    from raycsr.models.spec import Preprocessing

    which, size = what
    files = []
    for one in which:
        uneven = np.random.default_rng(one).integers(-3, 4, (375, 500, 3))
        file = io.BytesIO()
        Image.fromarray((GREY + APART * one + uneven).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    preprocessing = Preprocessing(input_size=(size, size), interpolation="bilinear", crop_pct=0.875, crop_mode="center")
    return decode_images(files, preprocessing)["image"]


def unet(denoiser: DenoiserOptions, model: str, size: int, rows: int, measured: Measured) -> Rows:
    """A diffusion U-Net before a classifier, uncompiled, which takes minutes: the engine beside both bare passes."""
    if measured.quick:
        denoiser, model, size = SMALL, "cifar_resnet8", 32
    asked = ModelOptions(model, input_size=size, denoiser=denoiser)
    composed = load_base_classifier(asked, num_classes=10 if "cifar" in model else 1000)
    network, rows = measured.prepared(composed, compile=False), measured.rows(rows)
    n = 8 * rows
    seconds = seconds_of(network, n, rows, measured.device)
    bare = seconds["denoiser, bare"] + seconds["classifier, bare"]
    return [
        {"what": what, "samples_per_second": n / took, "ratio": bare / took, "rows": rows}
        for what, took in seconds.items()
    ]


CIFAR_UNET = DenoiserOptions("improved_diffusion", sigma=SIGMA)
IMAGENET_UNET = DenoiserOptions("guided_diffusion", sigma=SIGMA, input_size=256)
STEPS: dict[str, tuple[int, Callable[[Measured], Rows]]] = {  # seconds that each may take, and what it does
    "tests": (60, tests),
    "cifar_resnet20": (20, functools.partial(engine, "cifar_resnet20", 32, 4096)),
    "resnet50": (120, resnet50),
    "vit_b": (30, functools.partial(engine, "vit_base_patch16_224", 224, 256)),
    "cifar_resnet110": (60, functools.partial(engine, "cifar_resnet110", 32, 1024)),
    "unet_cifar": (30, functools.partial(unet, CIFAR_UNET, "cifar_resnet110", 32, 256)),
    "vit_b_fp8": (30, functools.partial(engine, "vit_base_patch16_224", 224, 256, precision="fp8")),
    "resnet50_fp32": (30, functools.partial(engine, "resnet50", 224, 256, precision="fp32")),
    "noise": (10, lambda measured: [] if measured.quick else noise()),
    "unet_imagenet": (70, functools.partial(unet, IMAGENET_UNET, "resnet50", 224, 32)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the steps; the status is 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="first_gpu.json", help="file for the figures, written after each step")
    parser.add_argument("--seconds", type=float, default=450, help="seconds for all of it")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[*STEPS], help="steps")
    parser.add_argument("--quick", action="store_true", help="a rehearsal on tiny networks")
    asked = parser.parse_args(arguments)
    begin, is_there = time.monotonic(), torch.cuda.is_available()
    device = torch.device("cuda" if is_there else "cpu")
    measured = Measured(device, asked.quick or not is_there)
    name = torch.cuda.get_device_name() if is_there else "no GPU: a rehearsal"
    facts: dict[str, Any] = {"device": name, "torch": torch.__version__, "steps": {}}
    print(f"{name}, torch {torch.__version__}", flush=True)
    for step in asked.only:
        seconds, run = STEPS[step]
        start = time.monotonic()
        if not measured.quick and start - begin + seconds > asked.seconds:
            rows: Rows = [
                {"what": f"left out: {asked.seconds - start + begin:.0f} s are left, and it may take {seconds}"}
            ]
        else:
            try:
                rows = run(measured)
            except Exception as error:  # whatever it is, the other steps are worth more than this one
                traceback.print_exc()
                rows = [{"what": f"failed: {type(error).__name__}: {error}", "status": 1}]
        facts["steps"][step] = {"seconds": time.monotonic() - start, "rows": rows}
        Path(asked.out).write_text(json.dumps(facts, indent=1))
        for row in rows:
            print(step, *(f"{key}={_shown(value)}" for key, value in row.items()), flush=True)
        if is_there:
            torch.cuda.empty_cache()
    return int(any(row.get("status") for step in facts["steps"].values() for row in step["rows"]))


def _shown(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
