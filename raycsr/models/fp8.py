"""A network whose matrix products are of fp8: by PyTorch's own scaled products (torch.nn.functional.scaled_mm).

Weights and what meets them are rounded to e4m3, 8 bits with 3 of mantissa, each row by a scale of its own, its largest
magnitude over 448: the row of a weight matrix once, that of the inputs as they come. A row is a token of one image, so
what an image gives does not depend on its company. Products are summed in higher precision, and all else, the head
too, which is the last layer, is computed in bf16. f in fp8 is another classifier than f in bf16.
"""

from typing import cast

import torch
from torch import nn
from torch.nn.functional import ScalingType, scaled_mm

from raycsr.errors import UserError

_LARGEST = 448.0  # of e4m3
_MULTIPLE = 16  # of rows and columns of a matrix, which scaled_mm asks for


def layers(network: nn.Module) -> list[str]:
    """Names of the layers to compute in fp8: all linear ones but the last, of sizes that fp8 is there for."""
    linear = [(name, module) for name, module in network.named_modules() if type(module) in (nn.Linear, Fp8Linear)]
    return [
        name for name, module in linear[:-1] if module.in_features % _MULTIPLE == module.out_features % _MULTIPLE == 0
    ]


def refuse_network(network: nn.Module, arch: str) -> None:
    """Refuses a network that fp8 does nothing for.

    Args:
        network: The network.
        arch: Its name.

    Raises:
        UserError: It has no layer that would be computed in fp8.
    """
    if not layers(network):
        raise UserError(
            f"precision is fp8, which is for the linear layers of transformers and their kin, and {arch} has none but "
            "its head: give bf16, or auto"
        )


def refuse_device(device: str | torch.device) -> None:
    """Refuses a device that does not compute products of fp8, which is asked for one.

    Raises:
        UserError: It does not.
    """
    ones = torch.ones((_MULTIPLE, _MULTIPLE), device=device, dtype=torch.bfloat16)
    try:
        _product(ones, *rounded(ones), None)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"precision is fp8, which PyTorch {torch.__version__} does not compute in on this {ones.device.type} "
            "device: give bf16, or auto"
        ) from error


def to_fp8(network: nn.Module) -> None:
    """Has the layers of a network in bf16 that `layers` names compute in fp8, in place."""
    for name in layers(network):
        network.set_submodule(name, Fp8Linear(cast(nn.Linear, network.get_submodule(name))))


class Fp8Linear(nn.Linear):
    """A linear layer whose product is one of fp8.

    Its weights are there in bf16, too, for networks that take them without calling the layer (of BEiT, say): these
    products stay in bf16.
    """

    values: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        """Takes the weights of a layer in bf16."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        values, scale = rounded(linear.weight.detach())
        self.register_buffer("values", values)  # float8 (out, in)
        self.register_buffer("scale", scale)  # float32 (out, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps bf16 (..., in) to bf16 (..., out)."""
        rows = inputs.reshape(-1, self.in_features)
        return _product(rows, self.values, self.scale, self.bias).reshape(*inputs.shape[:-1], self.out_features)


def _product(
    inputs: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Maps bf16 (N, in) by weights (out, in), which `rounded` gave, to bf16 (N, out)."""
    rows, scale_of_rows = rounded(inputs)
    return scaled_mm(
        rows,
        values.t(),
        scale_of_rows,
        ScalingType.RowWise,
        scale.t(),
        ScalingType.RowWise,
        bias=bias,
        output_dtype=torch.bfloat16,
        use_fast_accum=True,  # sums of fewer bits than float32, which err far less than 3 bits of mantissa do
    )


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (N, D) as float8 (N, D) and the scales, float32 (N, 1), that they are to be multiplied by.

    What is not finite is NaN in the product.
    """
    scale = (rows.abs().amax(dim=1, keepdim=True).float() / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale
