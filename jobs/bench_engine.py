"""The engine beside the usual loop and its own bare passes, and the noise; what these need is neither Ray nor S3."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from raycsr.models.base_classifier import BaseClassifier, Part
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import arithmetic, prepare_for_inference, resolve_precision
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.noise import Copies, Noise, noise_scheme
from raycsr.smoothing.options import CHUNK, Draws

SIGMA = 0.5
ROUNDS = 3  # the middle one counts
MODEL = ModelOptions(name="resnet50")


def usual_loop(model: BaseClassifier, image: torch.Tensor, n: int, batch_size: int) -> np.ndarray:
    """What the field runs (as locuslab/smoothing's core.py does): fp32, repeat, randn_like, votes to the host."""
    counts = np.zeros(model.num_classes, dtype=int)
    with torch.no_grad():
        for _ in range(0, n, batch_size):
            batch = image.repeat((batch_size, 1, 1, 1))
            noise = torch.randn_like(batch) * SIGMA
            for vote in model(batch + noise).argmax(1).cpu().numpy():
                counts[vote] += 1
    return counts


def engine() -> list[dict]:
    """Engine against the usual loop: timm resnet50 at 224 px, one process, the same threads."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # the field's scripts run batches as large as memory allows; a CPU's caches prefer small ones
    n, usual_batch, batch_sizes = (8192, 512, (256, 512)) if device.type == "cuda" else (128, 64, (64, 16, 8))
    base_classifier = load_base_classifier(MODEL).to(device)
    precision = resolve_precision("auto", device)
    image = picture().to(device)

    baseline = f"usual loop, fp32, batch {usual_batch}"
    contenders: dict[str, Callable[[], object]] = {}
    for batch_size in sorted({usual_batch, *batch_sizes}, reverse=True):
        loop = functools.partial(usual_loop, base_classifier, image / 255, n, batch_size)
        contenders[f"usual loop, fp32, batch {batch_size}"] = loop
        if device.type == "cuda":
            contenders[f"usual loop, TF32 convolutions (PyTorch's default), batch {batch_size}"] = loop
    for compiled in (False, True):
        network = prepare_for_inference(base_classifier, precision=precision, device=device, compile=compiled)
        for batch_size in batch_sizes[-1:] if compiled else batch_sizes:
            sampler = Sampler(network, Draws(SIGMA, CHUNK, n - CHUNK, batch_size=batch_size), device=device)
            name = f"engine, {precision}, batch {batch_size}{', compiled' if compiled else ''}"
            contenders[name] = functools.partial(sampler.count, image, "image")
        pixels = torch.rand((batch_sizes[-1], *image.shape), device=device).contiguous(
            memory_format=torch.channels_last
        )
        contenders[f"bare passes of {name.removeprefix('engine, ')}"] = bare_passes(network, pixels, n)

    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):  # the first round warms up
        for name, contender in contenders.items():
            torch.backends.cudnn.allow_tf32 = "TF32" in name
            start = time.perf_counter()
            contender()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    rates = {name: n / statistics.median(times) for name, times in seconds.items()}
    rows = [{"what": name, "samples_per_second": rate, "ratio": rate / rates[baseline]} for name, rate in rates.items()]
    if device.type == "cuda":
        rows.append(_matrix_rate(device, max(rates.values())))
    return rows


def bare_passes(network: BaseClassifier, pixels: torch.Tensor, n: int, part: Part = "all") -> Callable[[], object]:
    """The network alone on one batch, over and over until n rows; on a GPU a CUDA graph, as the engine's passes are."""
    device = pixels.device

    @torch.inference_mode()
    def one_pass() -> torch.Tensor:
        with arithmetic(network.precision, device):
            return network(pixels, part)

    launch: Callable[[], object] = one_pass
    if device.type == "cuda":
        one_pass()  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            one_pass()
        launch = graph.replay
    return lambda: [launch() for _ in range(n // len(pixels))]


def in_turns(contenders: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds of each by `clock`, the middle one of some rounds; the first round warms up."""
    seconds: dict[str, list[float]] = {what: [] for what in contenders}
    for _ in range(ROUNDS + 1):
        for what, contender in contenders.items():
            start = clock(device)
            contender()
            seconds[what].append(clock(device) - start)
    return {what: statistics.median(times[1:]) for what, times in seconds.items()}


def picture(side: int = 224) -> torch.Tensor:
    """The image that is sampled: uint8 (3, side, side)."""
    return torch.randint(256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _matrix_rate(device: torch.device, samples_per_second: float) -> dict:
    """Share of the device's measured bf16 matrix rate; resnet50 at 224 px has 4.09 G multiply-adds (timm)."""
    a, b = (torch.randn((8192, 8192), device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    rate = 10 * 2 * 8192**3 / (time.perf_counter() - start)
    return {"what": "share of the bf16 matrix rate", "ratio": samples_per_second * 2 * 4.09e9 / rate}


def noise() -> list[dict]:
    """Noisy copies of an image: the lattice noise against the float32 noise of before it, in turns."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for side in (32, 224):
        pixels = picture(side).float().permute(1, 2, 0)[None].to(device)
        copies = [Copies(0, key, 0) for key in range(16 if side < 224 else 2)]
        out = torch.empty((len(copies) * CHUNK, *pixels.shape[1:]), device=device)
        for sigma in (0.25, 1.0):
            names: tuple[Noise, ...] = ("float32", "lattice")
            schemes = {name: noise_scheme(name, sigma, CHUNK, device) for name in names}
            adds: dict[str, Callable[[], object]] = {
                name: functools.partial(scheme.add, pixels, copies, out) for name, scheme in schemes.items()
            }
            each = {name: seconds / out.numel() * 1e9 for name, seconds in in_turns(adds, device).items()}
            rows += [
                {"what": f"{name}, sigma {sigma:g}, {side} px", "ns_per_element": ns, "ratio": ns / each["float32"]}
                for name, ns in each.items()
            ]
    return rows


def clock(device: torch.device) -> float:
    """CPU seconds, which a busy machine does not stretch; of a GPU, seconds."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
