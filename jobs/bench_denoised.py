"""What a denoiser in front costs: the engine beside the bare passes of the denoiser and of the classifier.

python -m jobs.bench_denoised, small networks for a CPU; the published ones of ImageNet, with random weights, on a GPU:

python -m jobs.bench_denoised --denoiser.name guided_diffusion --denoiser.args '{}' --denoiser.input_size 224 \
    --model resnet50 --input_size 224 --n 2048 --batch_size 64
"""

import sys
import warnings
from collections.abc import Callable

import torch

from jobs.bench_engine import bare_passes, in_turns
from raycsr.models.base_classifier import BaseClassifier, Part
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference, resolve_precision
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.options import CHUNK, Draws

SMALL = DenoiserOptions(
    "improved_diffusion",
    args={"num_channels": 32, "num_res_blocks": 1},
    sigma=0.5,
)


def bench_denoised(
    *,
    denoiser: DenoiserOptions = SMALL,
    model: str = "cifar_resnet20",
    input_size: int = 32,
    n: int = 256,
    batch_size: int = 32,
    out: str | None = None,
) -> None:
    """Draws samples of one image, in turns with bare passes of the two networks, and prints a table.

    Args:
        denoiser: The denoiser; without weights they are random, which costs the same.
        model: The classifier's timm name.
        input_size: Height and width of the classifier's input, in pixels.
        n: Number of samples, a multiple of the batch size, and of 64 twice or more.
        batch_size: Rows of a forward pass.
        out: JSON file to write.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with warnings.catch_warnings(action="ignore"):
        composed = load_base_classifier(ModelOptions(model, input_size=input_size, denoiser=denoiser), num_classes=1000)
    precision, rows = resolve_precision("auto", device), []
    for compiled in (False, True) if device.type == "cuda" else (False,):
        network = prepare_for_inference(composed, precision=precision, device=device, compile=compiled)
        label = f"{precision}, batch {batch_size}{', compiled' if compiled else ''}"
        seconds = seconds_of(network, n, batch_size, device)
        bare = seconds["denoiser, bare"] + seconds["classifier, bare"]
        rows += [
            {"what": f"{name}, {label}", "samples_per_second": n / time, "ratio": bare / time}
            for name, time in {**seconds, "both, bare": bare}.items()
        ]
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            rows.append({"what": f"peak of memory so far, {label}", "GiB": peak})
    from jobs.bench import show  # with Ray

    show({"denoised": rows}, out)


def seconds_of(network: BaseClassifier, n: int, batch_size: int, device: torch.device) -> dict[str, float]:
    """Seconds for n samples by each contender, the middle one of some rounds; CPU seconds of a CPU."""
    image = torch.randint(256, (3, *network.preprocessing.input_size), dtype=torch.uint8, device=device)
    sampler = Sampler(network, Draws(0.5, CHUNK, n - CHUNK, batch_size=batch_size), device=device)

    def bare(part: Part, size: tuple[int, int]) -> Callable[[], object]:
        pixels = torch.rand((batch_size, 3, *size), device=device).contiguous(memory_format=torch.channels_last)
        return bare_passes(network, pixels, n, part)

    return in_turns(
        {
            "engine": lambda: sampler.count(image, "image"),
            "denoiser, bare": bare("denoisers", network.preprocessing.input_size),
            "classifier, bare": bare("classifier", network.network_size),
        },
        device,
    )


if __name__ == "__main__":
    from raycsr.cli import run_job

    sys.exit(run_job(bench_denoised))
