"""A base classifier made fast for inference: precision, memory layout, batch norm folded, compilation.

Certificates are for the classifier as it is evaluated, so all of this is settled before a run's identity is.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, cast

import torch
from timm.layers import BatchNormAct2d
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raycsr.errors import UserError
from raycsr.models import fp8
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.int8 import quantised, refuse_device

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]

_CHECKED_ROWS = 4

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,  # of all but the products
}
"""Precision -> dtype of a network's parameters."""


def resolve_precision(
    precision: str, device: str | torch.device, base_classifier: BaseClassifier | None = None
) -> Precision:
    """Returns the precision meant on a device: "auto" is bf16 where the hardware computes in it, else fp32.

    Args:
        precision: Precision that is asked for.
        device: Device that computes.
        base_classifier: Base classifier that is meant, where it is known: one that is quantised computes in int8 alone.

    Raises:
        UserError: `precision` is none of these, or neither the device nor the base classifier computes in it.
    """
    if base_classifier is not None:
        check_precision(precision, base_classifier)
        if base_classifier.calibration is not None:
            refuse_device(device)
            return "int8"
    if precision == "auto":
        return "bf16" if _computes_in_bf16(torch.device(device)) else "fp32"
    if precision not in DTYPES:
        raise UserError(f"unknown precision {precision!r}: choose from auto, {', '.join(DTYPES)}.")
    if precision == "tf32" and torch.device(device).type != "cuda":
        raise UserError("precision is tf32, which GPUs alone compute in; give fp32, or auto")
    if precision == "fp8":
        fp8.refuse_device(device)
    return cast(Precision, precision)


def default_device(*, int8: bool = False) -> torch.device:
    """The device of this process where nobody names one: a GPU where it sees one, but of what is in int8 the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not int8 else "cpu")


def check_precision(precision: str, base_classifier: BaseClassifier, *, compile: bool = False) -> None:
    """Checks whether a base classifier computes in a precision, on whatever device: int8 alone where it is quantised.

    Args:
        precision: Precision that is asked for.
        base_classifier: The base classifier.
        compile: Whether it is to be compiled.

    Raises:
        UserError: It does not.
    """
    if base_classifier.calibration is None:
        if precision == "int8":
            raise UserError(
                "precision is int8, and the model is not quantised: make one of it by `raycsr quantise`, on training "
                "images, and give that, with no precision"
            )
        if precision == "fp8":
            fp8.refuse_network(base_classifier.network, base_classifier.arch)
        return
    if precision not in ("auto", "int8"):
        raise UserError(
            f"precision is {precision}, and the model is quantised to int8: leave the precision out, or give the "
            "model that it was made of"
        )
    if compile:
        raise UserError("compile is true, and the model is quantised to int8, which is not compiled: leave it out")


def _computes_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """What a GPU computes with while this lasts, so that a precision is what it says and f is one function.

    PyTorch's own default lets convolutions of float32 round their factors to TF32. An algorithm that is chosen by how
    fast it was, or that adds in an order of its own, would make f another function in another process.

    Args:
        precision: Name of the precision: in fp32, no convolution and no matrix product of float32 uses TF32. (Where
            nothing is float32, forbidding it would only make cuDNN slower: by 14 % for a ResNet-20 in bf16 on an H200.)
        device: Device that computes.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    try:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, False, True
        with _float32(tf32=precision != "fp32"):
            yield
    finally:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def _float32(*, tf32: bool) -> Iterator[None]:
    """Whether products of float32 may round their factors to TF32 while this lasts.

    PyTorch has an old way and a new way to say so. Where a process used the new one, the old one can no longer be read,
    which torch.compile does; and what the new one says of all operations stands where the old one forbids. So both are
    written, and read where they can be.
    """
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    matmul, convolution = "highest", True  # PyTorch's own defaults
    with suppress(RuntimeError):  # both ways were used
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolution = backends.cudnn.allow_tf32
    try:
        _say("high" if tf32 else "highest", tf32, zip(places, ["tf32" if tf32 else "ieee"] * len(places), strict=True))
        yield
    finally:
        _say(matmul, convolution, zip(places, before, strict=True))


def _say(matmul: str, convolution: bool, new: Iterable[tuple[Any, str]]) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution
    for place, precision in new:
        place.fp32_precision = precision


def prepare_for_inference(
    base_classifier: BaseClassifier,
    *,
    precision: Precision,
    device: str | torch.device,
    compile: bool = False,
) -> BaseClassifier:
    """Returns a copy of a base classifier that computes the same logits faster.

    The pixels still come in as float32, which holds whole grey levels over 255 apart, and so do the normalisation and
    the pixels between denoisers and the classifier; the cast to a network's dtype comes after it.

    Args:
        base_classifier: The base classifier; it is left as it is.
        precision: The network's precision.
        device: Device to put the copy on.
        compile: Compile it with torch.compile, for the one batch shape that it is called with.

    Returns:
        A base classifier in eval mode: float32 pixels (N, 3, H, W) in [0, 1] -> logits (N, m) in `precision`.

    Raises:
        UserError: an image's logits depend on the rest of its batch, or the precision is not that of a base
            classifier that is quantised.
    """
    check_precision(precision, base_classifier, compile=compile)
    prepared = copy.deepcopy(base_classifier).cpu().eval().requires_grad_(False)
    fold_batch_norm(prepared)  # on the CPU: TF32 would blur the comparison of logits
    if base_classifier.calibration is not None:
        refuse_device(device)
        if base_classifier.awaits_int8:  # or it is prepared already
            prepared.network = quantised(prepared.network, base_classifier.calibration, prepared.network_size)
    set_precision(prepared, precision)
    for part in (*prepared.in_front, prepared):
        part.network.to(memory_format=torch.channels_last)
    prepared.to(device)
    prepared.precision = precision
    with arithmetic(precision, prepared.scale.device):
        refuse_batch_dependence(prepared, (3, *prepared.preprocessing.input_size), device)
    if compile:
        _settle_compilation(prepared.scale.device)
        # No kernel is chosen by how fast it was here: it would be another in another process. As a setting of the
        # process it would last for one compilation (torch 2.14).
        prepared.compile(dynamic=False, options={"deterministic": True})
    return prepared


def _settle_compilation(device: torch.device) -> None:
    """Settings of the process for networks that it compiles."""
    import torch._dynamo.config as dynamo  # slow to import, and few compile
    import torch._inductor.config as inductor

    # On a CPU oneDNN takes activations and sums into its convolutions where weights are constants. It is the
    # process's setting, since as an option of the call it comes too late for the trace (torch 2.15).
    inductor.freezing = device.type == "cpu"
    # All networks and batch sizes of a process are versions of one piece of code, of which 8 are compiled by default.
    # Those that come later would be evaluated as they are, with no more than a line in the log.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit


def set_precision(base_classifier: BaseClassifier, precision: str) -> None:
    """Has the networks compute in a precision, in place; a denoiser may keep parts of its own in float32.

    What of a network is not in int8 is in float32 there, and so are denoisers in front of it; in fp8, it is bf16.
    """
    dtype = DTYPES.get(precision, torch.float32)
    for denoiser in base_classifier.in_front:
        denoiser.cast(dtype)
    base_classifier.network.to(dtype)
    if precision == "fp8":
        fp8.to_fp8(base_classifier.network)


def fold_batch_norm(base_classifier: BaseClassifier) -> None:
    """Folds each batch norm into the convolution before it, in place, where that leaves what it computes alone.

    In eval mode a batch norm is an affine map of each channel, hence part of the convolution whose output
    only it reads. A network that cannot be traced, or whose output would change by over 0.1 %, is left as
    it is; the classifier's network and those of denoisers each for themselves.
    """
    parts: list[Any] = [*base_classifier.denoisers, base_classifier]
    for part, size in zip(parts, base_classifier.sizes, strict=True):
        part.network = _folded(part.network, size)


def _folded(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The network with its batch norms folded; itself where that cannot be done."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    try:
        pairs = _convolutions_with_batch_norm(folded)
    except Exception:  # tracing runs the network's own code on symbols: it fails in any way that code can
        return network
    for conv_name, norm_name in pairs:
        conv: Any = folded.get_submodule(conv_name)
        norm: Any = folded.get_submodule(norm_name)
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(norm_name, rest)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = network(images), folded(images)
    return folded if (before - after).abs().max() <= 1e-3 * before.abs().max() else network


@torch.inference_mode()
def refuse_batch_dependence(
    network: Callable[[torch.Tensor], torch.Tensor], shape: Sequence[int], device: str | torch.device
) -> None:
    """Refuses a network whose logits for an image change with the rest of its batch.

    The certified statements are about a function of one image. A batch norm that never left training, say, makes noisy
    copies vote on each other's content. So the rows of a batch are moved and their company is replaced: a permutation
    alone would leave the statistics of the batch, and what they do, as they are. The new company has another mean,
    spread, minimum and maximum, and values on both sides of [0, 1].

    Args:
        network: Network: pixels, float32 (B, C, H, W) -> logits (B, m).
        shape: Shape of an image; (C, H, W).
        device: Device of the network.

    Raises:
        UserError: the logits differ by more than the rounding of their type.
    """
    pixels = torch.rand((_CHECKED_ROWS, *shape), generator=torch.Generator().manual_seed(0))
    batch = pixels.to(device).contiguous(memory_format=torch.channels_last)
    kept = _CHECKED_ROWS // 2
    moved = batch.flip(0).contiguous(memory_format=torch.channels_last)  # the last rows first
    moved[kept:] = 4 * moved[kept:] - 1
    logits = network(batch)
    before, after = logits.flip(0)[:kept].float(), network(moved)[:kept].float()
    tolerance = 1e-3 if logits.dtype == torch.float32 else 0.05
    change = (before - after).abs().max()
    alike = change <= tolerance * before.abs().max()  # never, where the new company makes a logit NaN
    if before.isfinite().all() and not alike:
        raise UserError(
            f"the network's logits for an image change by {change:.3g} with the rest of its batch, or by chance; give "
            "one that treats each image alone (batch norm and dropout in eval mode)"
        )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Looks only into what holds a batch norm, past the control flow that attention and the like have."""
        holds = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
        return isinstance(module, nn.BatchNorm2d) or not holds


def _convolutions_with_batch_norm(network: nn.Module) -> list[tuple[str, str]]:
    """The names of convolutions and of the batch norm that alone reads the output of each."""
    modules = dict(network.named_modules())
    calls = [node for node in _Tracer().trace(network).nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    return [
        (node.all_input_nodes[0].target, node.target)
        for node in calls
        if type(modules[node.target]) in (nn.BatchNorm2d, BatchNormAct2d)
        and modules[node.target].running_mean is not None
        and not modules[node.target].training  # one that never leaves it: its map is not an affine one
        and (source := node.all_input_nodes[0]).op == "call_module"
        and type(modules[source.target]) is nn.Conv2d
        and len(source.users) == 1
        and targets.count(source.target) == targets.count(node.target) == 1
    ]
