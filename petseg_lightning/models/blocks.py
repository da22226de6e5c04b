"""What the U-Net and the FCN share: convolutions, encoder, padding, the check of their sizes.

Letters at the ends of lines: B images, H and W pixels (multiples of 2**depth), D depth, N base channels.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.errors import InputError


def require_at_least(minimum: int, **sizes: int) -> None:
    """Raise InputError for the first of the named sizes that is not an integer of at least `minimum`."""
    for name, value in sizes.items():
        if not isinstance(value, int) or value < minimum:
            raise InputError(f"{name}={value!r} cannot build a network: it must be an integer; give {minimum} or more")


def pad_and_crop(network: Callable[[Tensor], Tensor], images: Tensor, multiple: int) -> Tensor:
    """Run a network that needs sides divisible by `multiple` on images of any size.

    The bottom and right edges are replicated (a constant would be an edge that the network sees), and what
    they add is cropped from the output. For sides that are multiples already it is `network(images)`.

    Args:
        network: (B, C, h, w) -> (B, K, h, w), for h and w divisible by `multiple`.
        images: (B, C, H, W), any H and W of at least 1.
        multiple: at least 1.

    Returns:
        (B, K, H, W).
    """
    height, width = images.shape[-2:]
    right, bottom = ((side + multiple - 1) // multiple * multiple - side for side in (width, height))
    padded = F.pad(images, (0, right, 0, bottom), mode="replicate")
    # cropped by a negative pad: unlike a slice, torch.export takes it for padded and unpadded sides alike
    return F.pad(network(padded), (0, -right, 0, -bottom))


class _Concatenation(torch.autograd.Function):
    """`torch.cat` along the channels, whose gradients are dense.

    Its own are views of one tensor. Where the channels are last in memory, upsampling and addition take a view
    apart pixel by pixel on a CPU, which is four times slower than to copy it first. The values are the same.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.channels = [tensor.shape[1] for tensor in tensors]
        return torch.cat(tensors, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        parts = gradient.split(ctx.channels, dim=1)
        if gradient.device.type == "cpu" and gradient.is_contiguous(memory_format=torch.channels_last):
            return tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)
        return parts


def concatenate(*tensors: Tensor) -> Tensor:
    """(B, C1, H, W), (B, C2, H, W), ... -> (B, C1 + C2 + ..., H, W)."""
    return _Concatenation.apply(*tensors)


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions with batch normalization and ReLU: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Encoder(nn.Module):
    """Stages of N, 2N, 4N, ... channels with 2x2 max-pooling after each, then a bottleneck of the last width.

    Attributes:
        widths: channels of the D stages, full resolution first.
    """

    def __init__(self, base_channels: int, depth: int) -> None:
        super().__init__()
        self.widths = [base_channels * 2**level for level in range(depth)]
        self.stages = nn.ModuleList(ConvBlock(*channels) for channels in pairwise([3, *self.widths]))
        self.bottleneck = ConvBlock(self.widths[-1], self.widths[-1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of all resolutions, from full to that of the bottleneck.

        Args:
            images: (B, 3, H, W), H and W divisible by 2**D.

        Returns:
            D + 1 tensors: (B, N * 2**i, H / 2**i, W / 2**i) for stage i < D, and the bottleneck
            (B, N * 2**(D-1), H / 2**D, W / 2**D).
        """
        features, x = [], images
        for stage in self.stages:
            features.append(stage(x))
            x = F.max_pool2d(features[-1], kernel_size=2)
        return [*features, self.bottleneck(x)]
