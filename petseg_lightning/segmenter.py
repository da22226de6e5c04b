"""A model: what checkpoints, bundles and exports hold, and all that a prediction needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from petseg_lightning.data.targets import IGNORE, Target

CHECKPOINT_KEY = "petseg_lightning"  # under which a file has the description of its model


class Segmenter(nn.Module):
    """A network with its preprocessing.

    Args:
        network: normalized images (B,3,H,W) -> logits (B,K,H,W).
        target: the classes, and which class each part of a mask is.
        mean, std: of RGB in 0..1; the model normalizes by itself.
        description: plain values stored in every checkpoint: what rebuilds this model.
    """

    mean: Tensor
    std: Tensor
    class_of_part: Tensor

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        mean: Sequence[float],
        std: Sequence[float],
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.target, self.description = network, target, dict(description or {})
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        lookup = torch.full((256,), IGNORE)
        lookup[: len(target.part_to_class)] = torch.tensor(target.part_to_class)
        self.register_buffer("class_of_part", lookup, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (B,3,H,W) -> logits (B,K,H,W)."""
        return self.network(self.normalized(images))

    def normalized(self, images: Tensor) -> Tensor:
        """uint8 RGB images (B,3,H,W) -> what the network takes, float32 of the same shape."""
        return images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std)


def classes(logits: Tensor) -> Tensor:
    """The most likely class of each pixel: logits (B,K,H,W) -> uint8 (B,H,W)."""
    return logits.max(dim=1).indices.byte()  # argmax is 20 times slower where the channels are first


def resize_logits(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (B,K,h,w) at another resolution (B,K,H,W), bilinear: how a prediction returns to its picture's size."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False, antialias=False)


def resize_rows(logits: Tensor, size: Sequence[int], top: int, bottom: int) -> Tensor:
    """Rows `top` to `bottom` - 1 of `resize_logits(logits, size)`, (B,K,bottom-top,W), in memory for these alone."""
    (height, width), available = size, logits.shape[-2]
    if (top, bottom) == (0, height):
        return resize_logits(logits, size)
    places = (torch.arange(top, bottom, device=logits.device, dtype=torch.float64) + 0.5) * (available / height) - 0.5
    places = places.clamp(0, available - 1)
    above = places.long()
    below = (above + 1).clamp(max=available - 1)
    first = int(above[0])
    rows = resize_logits(logits[..., first : int(below[-1]) + 1, :], (int(below[-1]) + 1 - first, width))
    weight = (places - above).to(logits.dtype)[:, None]
    return torch.lerp(rows.index_select(-2, above - first), rows.index_select(-2, below - first), weight)
