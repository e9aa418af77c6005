"""A network in int8, for x86 CPUs: by PyTorch's own quantisation of traced networks (torch.ao.quantization).

Weights are rounded to 8 bits, with a scale for each channel, and what flows between layers to whole numbers, with one
scale and zero point for each place in the network: 128 of them over the range that was measured, and as many beyond it.
(With 256, sums of products saturate on CPUs without VNNI.) These numbers are measured once on noisy images
(`raycsr.models.calibration`) and belong to the network from then on, as its weights do: f in int8 is another classifier
than f in float32. They are constants, so that what an image gives does not depend on its company, and sums of whole
numbers are exact in any order, so that it depends neither on the size of the batch nor on the number of threads. The
head, which is the last layer, stays in float32: of 128 values many logits would tie.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from raycsr.errors import UserError

SCHEME = "x86/1"
"""Name of the way in which a network and its calibration become another network; any change is a new scheme."""

_ENGINE = "x86"  # of PyTorch: oneDNN where the CPU has VNNI, else FBGEMM
_NO_GAIN = (nn.LayerNorm, nn.GELU, nn.SiLU, nn.Hardswish)  # of attention, ConvNeXt, EfficientNet and the like
_ANEW = "calibrate it again, by `raycsr quantise`"


@dataclass(frozen=True)
class Calibration:
    """What turns a network into one in int8, beside its weights.

    Attributes:
        sigma: Standard deviation of the noise on the images that it was measured on, in [0, 1] pixel units.
        places: Place in the traced network -> scale, and the whole number that stands for 0.
        scheme: `SCHEME` of the raycsr that measured it.
    """

    sigma: float
    places: Mapping[str, tuple[float, int]]
    scheme: str = SCHEME

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        places = {name: [scale, zero_point] for name, (scale, zero_point) in self.places.items()}
        return {"scheme": self.scheme, "sigma": self.sigma, "places": places}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Calibration":
        """The reverse of `to_dict`.

        Raises:
            UserError: It is no such description, or that of another raycsr.
        """
        try:
            if stored["scheme"] != SCHEME:
                raise UserError(f"its int8 is of scheme {stored['scheme']!r}, this raycsr has {SCHEME!r}: {_ANEW}")
            sigma = stored["sigma"]
            places = {name: (scale, zero_point) for name, (scale, zero_point) in stored["places"].items()}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"what is noted of its int8 is damaged: {_ANEW}") from error
        numbers = [sigma, *(scale for scale, _ in places.values())]
        if not (
            all(type(one) is float and 1e-30 < one < 1e30 for one in numbers)
            and all(type(zero_point) is int and 0 <= zero_point <= 255 for _, zero_point in places.values())
        ):
            raise UserError(f"what is noted of its int8 is damaged: {_ANEW}")
        return cls(sigma, places)

    @property
    def digest(self) -> str:
        """Digest of all that decides about the logits: of two calibrations with one digest these are equal."""
        facts = {name: value for name, value in self.to_dict().items() if name != "sigma"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def refuse_device(device: str | torch.device) -> None:
    """Refuses a device that computes no int8.

    Raises:
        UserError: It is a GPU, or a CPU for which PyTorch has no such code.
    """
    if torch.device(device).type != "cpu":
        raise UserError(
            "the model is quantised to int8, which x86 CPUs alone compute in, and the device is "
            f"{torch.device(device).type}: leave the device out, or give the model that it was made of"
        )
    if _ENGINE not in torch.backends.quantized.supported_engines:
        raise UserError(
            "the model is quantised to int8, which x86 CPUs alone compute in, and this is another CPU: give the model "
            "that it was made of"
        )


def observed(network: nn.Module, size: tuple[int, int]) -> tuple[fx.GraphModule, dict[str, list[str]]]:
    """A copy of a network that watches what flows through it.

    Args:
        network: Network in eval mode, its batch norms folded: float32 pixels (N, 3, H, W) -> logits (N, m).
        size: Height and width of its pixels.

    Returns:
        The copy, and its places: name of the observer -> all names that it has, where several places share one.

    Raises:
        UserError: The network cannot be traced, nothing of it can be in int8, or it is of a kind that gains nothing.
    """
    odd = sorted({type(module).__name__ for module in network.modules() if isinstance(module, _NO_GAIN)})
    if odd:
        raise UserError(
            f"the network has {', '.join(odd)}, and such networks are hardly faster in int8 than in bf16 and less "
            "accurate: sample it as it is, or quantise one of convolutions and ReLU, such as a ResNet"
        )
    with _quantisation() as torch_ao:
        mapping = torch_ao.get_default_qconfig_mapping(_ENGINE)
        layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for name in layers[-1:]:
            mapping.set_module_name(name, None)  # the head
        try:
            watched = torch_ao.prepare_fx(network, mapping, (torch.zeros(1, 3, *size),))
        except Exception as error:  # tracing runs the network's own code on symbols: it fails in any way that code can
            raise UserError(
                f"the network cannot be traced, and so not quantised to int8 ({_first_line(error)}): sample it as it is"
            ) from error
        found = [
            (name, module)
            for name, module in watched.named_modules(remove_duplicate=False)
            if isinstance(module, torch_ao.ObserverBase)
        ]
    places: dict[int, list[str]] = {}
    for name, module in found:
        places.setdefault(id(module), []).append(name)
    if not places:
        raise UserError("the network has no layer that int8 is known for: sample it as it is")
    return watched, {min(names): names for names in places.values()}


def measured(watched: nn.Module, places: Mapping[str, list[str]]) -> dict[str, tuple[float, int]]:
    """What a watching network has seen, `places` of a `Calibration`.

    Raises:
        UserError: A place has no one scale, or has seen what is not finite.
    """
    found = {}
    for name in places:
        scale, zero_point = (one.double().tolist() for one in watched.get_submodule(name).calculate_qparams())  # type: ignore[operator]  # an observer
        if len(scale) != 1 or not 1e-30 < scale[0] < 1e30:
            raise UserError(f"the network cannot be quantised to int8, because of {name}: sample it as it is")
        found[name] = (float(scale[0]), int(zero_point[0]))
    return found


def quantised(network: nn.Module, calibration: Calibration, size: tuple[int, int]) -> nn.Module:
    """The network in int8; arguments and errors as those of `observed`.

    Raises:
        UserError: The calibration is that of another network.
    """
    watched, places = observed(network, size)
    if places.keys() != calibration.places.keys():
        raise UserError(
            f"the model's int8 was calibrated at {len(calibration.places)} places, and PyTorch {torch.__version__} "
            f"finds {len(places)} others in the network: {_ANEW}"
        )
    with _quantisation() as torch_ao:
        for place, names in places.items():
            scale, zero_point = calibration.places[place]
            was: Any = watched.get_submodule(place)
            fixed = torch_ao.FixedQParamsObserver(
                scale, zero_point, was.dtype, was.qscheme, was.quant_min, was.quant_max
            )
            for name in names:
                watched.set_submodule(name, fixed)
        converted: nn.Module = torch_ao.convert_fx(watched)
    return converted


class _TorchAO:
    """What is used of torch.ao.quantization, which is slow to import, and few quantise."""

    def __init__(self) -> None:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.observer import FixedQParamsObserver, ObserverBase
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        self.get_default_qconfig_mapping, self.prepare_fx = get_default_qconfig_mapping, prepare_fx
        self.convert_fx, self.ObserverBase = convert_fx, ObserverBase
        self.FixedQParamsObserver = FixedQParamsObserver


@contextmanager
def _quantisation() -> Iterator[_TorchAO]:
    """PyTorch's quantisation, for our engine, without what it says of its own age at each call.

    Raises:
        UserError: This PyTorch has none: it is announced to move to another package.
    """
    refuse_device("cpu")
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = _TorchAO()
        except ImportError as error:
            raise UserError(
                f"PyTorch {torch.__version__} has no quantisation to int8 any more: install an earlier one, or give "
                "the model that it was made of"
            ) from error
        torch.backends.quantized.engine = _ENGINE
        try:
            yield found
        finally:
            torch.backends.quantized.engine = before


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
