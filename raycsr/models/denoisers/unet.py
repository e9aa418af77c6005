"""The U-Net of improved-diffusion and guided-diffusion, whose published weights load by their names.

The networks are those of Nichol & Dhariwal (ICML 2021) and of Dhariwal & Nichol (NeurIPS 2021). What they are made of,
and the names of their tensors, were read in openai/improved-diffusion (commit 1bc7bbb) and openai/guided-diffusion
(22e0df8); the code is raycsr's own. All images of a batch have the same t here, so what depends on t alone is worked
out once for all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from raycsr.errors import UserError
from raycsr.models.time_embedding import time_embedding

_GROUPS = 32  # of channels, in each group norm
_MULTIPLIERS: dict[int, tuple[float, ...]] = {  # of the channels at each resolution, by the size of the image
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}


@dataclass(frozen=True)
class UNetShape:
    """What a U-Net is made of, by the names of the flags of the published code.

    Attributes:
        image_size: Height and width of its images, in pixels.
        num_channels: Number of channels that the multipliers multiply.
        num_res_blocks: Number of residual blocks at each resolution on the way down; one more on the way up.
        attention_resolutions: Heights at which each residual block is followed by attention.
        channel_mult: Multipliers of channels, one a resolution, each half of the one before; None: the usual ones of
            the image's size.
        num_heads: Number of attention heads.
        num_head_channels: Number of channels of a head, which decides instead of `num_heads`; None: `num_heads` does.
        learn_sigma: Whether it also estimates variances, in three more channels.
        use_scale_shift_norm: Whether t scales and shifts what is normalised, rather than being added before.
        resblock_updown: Whether residual blocks, rather than single convolutions, go from a resolution to the next.
        use_new_attention_order: Whether queries, keys and values of all heads lie one after another.
    """

    image_size: int
    num_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...] = (16, 8)
    channel_mult: tuple[float, ...] | None = None
    num_heads: int = 4
    num_head_channels: int | None = None
    learn_sigma: bool = True
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False

    def __post_init__(self) -> None:
        """Refuses what the published command line writes as a text.

        Raises:
            UserError: Resolutions or multipliers are no list.
        """
        for name, value in (
            ("attention_resolutions", self.attention_resolutions),
            ("channel_mult", self.channel_mult),
        ):
            if value is not None and not isinstance(value, list | tuple):
                raise UserError(f"{name} is {value!r}: give a list of numbers, such as [16, 8].")

    @property
    def channels(self) -> list[int]:
        """Number of channels at each resolution, from the image's own down.

        Raises:
            UserError: The image's size has no usual multipliers, or channels do not come in 32 groups.
        """
        multipliers = self.channel_mult or _MULTIPLIERS.get(self.image_size)
        if multipliers is None:
            raise UserError(
                f"image_size is {self.image_size}: give channel_mult, which is known for "
                f"{', '.join(map(str, sorted(_MULTIPLIERS)))} px alone."
            )
        channels = [int(multiplier * self.num_channels) for multiplier in multipliers]
        if any(number % _GROUPS or number < 1 for number in channels):
            raise UserError(f"the U-Net would have {channels} channels: give multiples of {_GROUPS}.")
        if self.image_size % 2 ** (len(channels) - 1):
            raise UserError(f"image_size is {self.image_size}, which cannot be halved {len(channels) - 1} times.")
        return channels

    def heads(self, channels: int) -> int:
        """Number of heads of attention over so many channels."""
        heads = self.num_heads if self.num_head_channels is None else channels // self.num_head_channels
        if heads < 1 or channels % heads:
            raise UserError(f"{channels} channels do not make {heads} attention heads: give another num_heads.")
        return heads


class GroupNorm(nn.GroupNorm):
    """A group norm that computes in float32, whatever it is given."""

    def __init__(self, channels: int) -> None:
        """Creates one of 32 groups."""
        super().__init__(_GROUPS, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises (N, C, ...) and returns it in the type it had."""
        return super().forward(x.float()).to(x.dtype)


class ResBlock(nn.Module):
    """Two convolutions around the embedding of t, and a way past them; it may halve or double the resolution."""

    def __init__(self, shape: UNetShape, in_chans: int, out_chans: int, *, scale: float = 1) -> None:
        """Creates a block that multiplies height and width by `scale`: 1, 2 or 1/2."""
        super().__init__()
        self.scale, self.modulates = scale, shape.use_scale_shift_norm
        self.in_layers = nn.Sequential(GroupNorm(in_chans), nn.SiLU(), _conv3x3(in_chans, out_chans))
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * shape.num_channels, (2 if self.modulates else 1) * out_chans)
        )
        # The third of them drops out in training there, and has no weights.
        self.out_layers = nn.Sequential(GroupNorm(out_chans), nn.SiLU(), nn.Identity(), _conv3x3(out_chans, out_chans))
        self.skip_connection = nn.Identity() if in_chans == out_chans else nn.Conv2d(in_chans, out_chans, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Maps (N, in_chans, H, W) and t's embedding (1, E) to (N, out_chans, scale * H, scale * W)."""
        norm, activation, convolution = self.in_layers
        hidden = convolution(self._resized(activation(norm(x))))
        embedded = self.emb_layers(t).to(hidden.dtype)[..., None, None]  # 1 C 1 1
        if self.modulates:
            scale, shift = embedded.chunk(2, dim=1)
            hidden = self.out_layers[1:](self.out_layers[0](hidden) * (1 + scale) + shift)
        else:
            hidden = self.out_layers(hidden + embedded)
        return self.skip_connection(self._resized(x)) + hidden

    def _resized(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale == 1:
            return x
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.scale > 1 else F.avg_pool2d(x, 2)


class Attention(nn.Module):
    """Attention of each pixel to all of its image, beside the way past it."""

    def __init__(self, shape: UNetShape, channels: int) -> None:
        """Creates attention over so many channels."""
        super().__init__()
        self.heads, self.is_new = shape.heads(channels), shape.use_new_attention_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to the same shape."""
        flat = x.flatten(2)  # N C HW
        qkv = self.qkv(self.norm(flat))  # N 3C HW
        order = (3, self.heads) if self.is_new else (self.heads, 3)
        # As a GPU's fast attention wants them in memory: N 3 heads HW C/heads, or N heads 3 ...
        parts = qkv.unflatten(1, (*order, -1)).transpose(-1, -2).contiguous()
        query, key, value = parts.unbind(1 if self.is_new else 2)  # N heads HW C/heads
        seen = F.scaled_dot_product_attention(query, key, value).transpose(-1, -2).flatten(1, 2)  # N C HW
        return (flat + self.proj_out(seen)).reshape(x.shape)


class Downsample(nn.Module):
    """A convolution that halves the resolution."""

    def __init__(self, channels: int) -> None:
        """Creates one that keeps the channels."""
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to (N, C, H / 2, W / 2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Each pixel four times, and a convolution."""

    def __init__(self, channels: int) -> None:
        """Creates one that keeps the channels."""
        super().__init__()
        self.conv = _conv3x3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to (N, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.ModuleList):
    """Modules after one another, of which residual blocks are also told t."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) and t's embedding (1, E) to (N, C', H', W')."""
        for module in self:
            x = module(x, t) if isinstance(module, ResBlock) else module(x)
        return x


class UNet(nn.Module):
    """A U-Net that estimates the noise of images: down to a low resolution and up again, past what it saw before."""

    def __init__(self, shape: UNetShape) -> None:
        """Creates a network with random weights.

        Args:
            shape: What it is made of.

        Raises:
            UserError: The parts do not fit together.
        """
        super().__init__()
        self.shape = shape
        base, widths = shape.num_channels, shape.channels
        self.time_embed = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))
        self.input_blocks = nn.ModuleList([Stage([_conv3x3(3, widths[0])])])
        seen, width = [widths[0]], widths[0]  # the channels of what the way up will be given, and those now
        for level, out in enumerate(widths):
            for _ in range(shape.num_res_blocks):
                self.input_blocks.append(Stage([ResBlock(shape, width, out), *self._attention(level, out)]))
                seen.append(width := out)
            if level < len(widths) - 1:
                down = ResBlock(shape, out, out, scale=0.5) if shape.resblock_updown else Downsample(out)
                self.input_blocks.append(Stage([down]))
                seen.append(out)
        self.middle_block = Stage(
            [ResBlock(shape, width, width), Attention(shape, width), ResBlock(shape, width, width)]
        )
        self.output_blocks = nn.ModuleList()
        for level, out in reversed([*enumerate(widths)]):
            for i in range(shape.num_res_blocks + 1):
                parts: list[nn.Module] = [ResBlock(shape, width + seen.pop(), out), *self._attention(level, out)]
                if level and i == shape.num_res_blocks:
                    parts.append(ResBlock(shape, out, out, scale=2) if shape.resblock_updown else Upsample(out))
                self.output_blocks.append(Stage(parts))
                width = out
        self.out = nn.Sequential(GroupNorm(width), nn.SiLU(), _conv3x3(width, 6 if shape.learn_sigma else 3))

    def _attention(self, level: int, channels: int) -> Iterator[nn.Module]:
        if self.shape.image_size // 2**level in self.shape.attention_resolutions:
            yield Attention(self.shape, channels)

    def forward(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """Estimates noise.

        Args:
            x: Noisy images; float32 (N, 3, H, W).
            t: The step, in the network's own unit; it may lie between whole steps.

        Returns:
            float32 (N, 3, H, W), or (N, 6, H, W) where it learns sigma: the noise, in units of its standard deviation,
            and then variances.
        """
        embedded = self.time_embed(time_embedding(t, self.shape.num_channels, x.device))  # 1 E
        hidden, seen = x.to(self.dtype), []
        for stage in self.input_blocks:
            hidden = stage(hidden, embedded)
            seen.append(hidden)
        hidden = self.middle_block(hidden, embedded)
        for stage in self.output_blocks:
            hidden = stage(torch.cat([hidden, seen.pop()], dim=1), embedded)
        return self.out(hidden.to(x.dtype))

    @property
    def dtype(self) -> torch.dtype:
        """Type that convolutions inside compute in."""
        return next(self.input_blocks.parameters()).dtype

    def cast(self, dtype: torch.dtype) -> None:
        """Has the convolutions compute in another type, and all else in float32, as the published code does.

        Float32 are what depends on t, each group norm and the last convolution, which together cost next to nothing.
        """
        for blocks in (self.input_blocks, self.middle_block, self.output_blocks):
            for module in blocks.modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d):
                    module.to(dtype)


def _conv3x3(in_chans: int, out_chans: int) -> nn.Conv2d:
    return nn.Conv2d(in_chans, out_chans, 3, padding=1)
