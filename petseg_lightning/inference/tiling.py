"""Large pictures in overlapping windows: where they are, and how their logits become those of the picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from petseg_lightning.errors import InputError
from petseg_lightning.segmenter import resize_rows

WIDEST = 2.0  # aspect ratio up to which tiling=auto squeezes the whole picture into the network's square
OVERLAP = 0.25  # of a window's side, with the next one, at least
MAX_WINDOWS = 1000  # of a picture


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

    Raises:
        InputError: they are more than MAX_WINDOWS.
    """
    if tiling == "auto":
        tiling = min(width, height) if max(width, height) > WIDEST * min(width, height) else "none"
    if isinstance(tiling, str):
        return [Window(0, 0, width, height)]
    number = _number(width, tiling) * _number(height, tiling)
    if number > MAX_WINDOWS:
        raise InputError(
            f"{width} x {height} pixels in windows of tiling={tiling} are {number:,} windows, and {MAX_WINDOWS:,} are "
            "the most; give a larger tiling="
        )
    columns, rows = _spans(width, tiling), _spans(height, tiling)
    return [Window(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def scaled(places: Sequence[Window], before: Sequence[int], after: Sequence[int]) -> list[Window]:
    """Windows of a picture of one width and height in the same picture of another."""
    x, y = (now / then for then, now in zip(before, after, strict=True))
    corners = [(round(w.left * x), round(w.top * y), round(w.right * x), round(w.bottom * y)) for w in places]
    return [Window(left, top, max(right, left + 1), max(bottom, top + 1)) for left, top, right, bottom in corners]


def blend(logits: Tensor, places: Sequence[Window], size: Sequence[int], rows: tuple[int, int] | None = None) -> Tensor:
    """The logits of a picture from those of its windows: their mean, which fades towards a window's inner edges.

    Args:
        logits: (T,K,S,S), of T windows.
        places: T windows.
        size: height H and width W of the picture.
        rows: the first, and the one after the last, that are wanted; None: all.

    Returns:
        (K,H,W), or as many rows of it.
    """
    height, width = size
    first, end = rows or (0, height)
    if len(places) == 1:
        return resize_rows(logits, size, first, end)[0]
    total = logits.new_zeros(logits.shape[1], end - first, width)
    weights = logits.new_zeros(end - first, width)
    for one, (left, top, right, bottom) in zip(logits, places, strict=True):
        begin, stop = max(top, first), min(bottom, end)
        if begin >= stop:
            continue
        weight = _fade(top, bottom, height)[begin - top : stop - top, None] * _fade(left, right, width)
        weight = weight.to(logits)
        part = resize_rows(one[None], (bottom - top, right - left), begin - top, stop - top)[0]
        total[:, begin - first : stop - first, left:right] += part.mul_(weight)
        weights[begin - first : stop - first, left:right] += weight
    return total.div_(weights)


def _number(length: int, side: int) -> int:
    return 1 if side >= length else int(np.ceil((length - side) / (side - int(OVERLAP * side)))) + 1


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    if side >= length:
        return [(0, length)]
    starts = np.linspace(0, length - side, _number(length, side)).round().astype(int).tolist()
    return [(start, start + side) for start in starts]


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
