"""Large pictures in overlapping windows: where they are, and how their logits become those of the picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from petseg_lightning.segmenter import resize_logits

WIDEST = 2.0  # aspect ratio up to which tiling=auto squeezes the whole picture into the network's square
OVERLAP = 0.25  # of a window's side, with the next one, at least


class Window(NamedTuple):
    """Pixels of a picture, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


def windows(width: int, height: int, tiling: int | str) -> list[Window]:
    """Where a picture is looked at.

    Args:
        width, height: of the picture, in pixels.
        tiling: none: all at once; a side in pixels: squares of it, where the picture is as large; auto: all at once,
            but of a panorama (WIDEST) squares as high, or as wide, as it is.

    Returns:
        Windows that cover it.
    """
    if tiling == "auto":
        tiling = min(width, height) if max(width, height) > WIDEST * min(width, height) else "none"
    if isinstance(tiling, str):
        return [Window(0, 0, width, height)]
    columns, rows = _spans(width, tiling), _spans(height, tiling)
    return [Window(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def scaled(places: Sequence[Window], before: Sequence[int], after: Sequence[int]) -> list[Window]:
    """Windows of a picture of one width and height in the same picture of another."""
    x, y = (now / then for then, now in zip(before, after, strict=True))
    corners = [(round(w.left * x), round(w.top * y), round(w.right * x), round(w.bottom * y)) for w in places]
    return [Window(left, top, max(right, left + 1), max(bottom, top + 1)) for left, top, right, bottom in corners]


def blend(logits: Tensor, places: Sequence[Window], size: Sequence[int]) -> Tensor:
    """The logits of a picture from those of its windows: their mean, which fades towards a window's inner edges.

    Args:
        logits: (T,K,S,S), of T windows.
        places: T windows.
        size: height H and width W of the picture.

    Returns:
        (K,H,W).
    """
    height, width = size
    if len(places) == 1:
        return resize_logits(logits, size)[0]
    total = logits.new_zeros(logits.shape[1], height, width)
    weights = logits.new_zeros(height, width)
    for one, (left, top, right, bottom) in zip(logits, places, strict=True):
        weight = _fade(top, bottom, height)[:, None] * _fade(left, right, width)
        weight = weight.to(logits)
        total[:, top:bottom, left:right] += resize_logits(one[None], (bottom - top, right - left))[0].mul_(weight)
        weights[top:bottom, left:right] += weight
    return total.div_(weights)


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    if side >= length:
        return [(0, length)]
    number = int(np.ceil((length - side) / (side - int(OVERLAP * side)))) + 1
    return [(start, start + side) for start in np.linspace(0, length - side, number).round().astype(int).tolist()]


def _fade(begin: int, end: int, length: int) -> Tensor:
    """Weights along a side of a window: 1, less towards its ends, except where the picture ends, too."""
    places = torch.arange(end - begin) + 0.5
    reach = max(1.0, OVERLAP * (end - begin))
    weight = torch.ones(end - begin)
    if begin > 0:
        weight = torch.minimum(weight, places / reach)
    if end < length:
        weight = torch.minimum(weight, places.flip(0) / reach)
    return weight
