"""What a picture shows, without its background: an alpha channel with soft edges, and colours to go with it.

He, Sun, Tang, "Guided Image Filtering", TPAMI 2013, and "Fast Guided Filter", 2015 (kornia's); Forte, "Approximate Fast
Foreground Colour Estimation", ICIP 2021.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from kornia.filters import box_blur
from PIL import Image

from petseg_lightning.segmenter import resize_rows

BORDER_SHARE = 0.5  # of the border class, which lies on both sides of the outline
RADIUS = 0.016  # of the longer side: how far an edge of the picture may be from that of the probabilities
EPSILON = 1e-4  # variance of colours, from 0 to 1, that is an edge
CERTAIN = 0.2  # alpha below it is 0, and above 1 minus it 1
_WORKING_SIDE = 250  # pixels, to which larger pictures are reduced for the coefficients of the filter
_COLOUR_SIDE = 500  # pixels, to which larger pictures are reduced for the colours around a pixel
_AT_ONCE = 2**20  # pixels that are filtered at once
_COLOUR_RADIUS = 0.03  # of the longer side, around a pixel, in which its own colours are looked for


def background_of(class_names: Sequence[str]) -> int:
    """The class that is not cut out: `background`, or the first where none is called so."""
    return class_names.index("background") if "background" in class_names else 0


def foreground(probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """How likely each pixel is to belong to what is cut out.

    That is every class but the background (`background_of`), and half of `border`.

    Args:
        probabilities: float32 (K,H,W), whose sum over K is 1.
        class_names: K names.

    Returns:
        float32 (H,W), 0..1.
    """
    background = background_of(class_names)
    shares = [
        0.0 if k == background else BORDER_SHARE if name == "border" else 1.0 for k, name in enumerate(class_names)
    ]
    return np.tensordot(np.array(shares, np.float32), probabilities, axes=1)


def soft_alpha(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """An alpha channel that follows the picture's own edges.

    Args:
        image: uint8 (H,W,3).
        foreground: float32 (H,W), 0..1.

    Returns:
        float32 (H,W), 0..1.
    """
    return np.concatenate([alpha for _, _, alpha in _alphas(image, foreground)])


def _alphas(image: np.ndarray, foreground: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """`soft_alpha` in parts: their first row, the one after the last, and their alpha, float32 (rows,W)."""
    height, width = foreground.shape
    step = max(1, max(height, width) // _WORKING_SIDE)
    radius = max(1, round(RADIUS * max(height, width) / step))
    filtered = min(height, width) > 2 * radius * step  # else too thin for the filter's window
    coefficients = _coefficients(image, foreground, step, radius) if filtered else None
    for top, bottom in _parts(height, width):
        alpha = foreground[top:bottom]
        if coefficients is not None:
            slope, offset = resize_rows(coefficients, (height, width), top, bottom)[0].split((3, 1))
            colours = torch.from_numpy(image[top:bottom].astype(np.float32)).div_(255).permute(2, 0, 1)
            filtered_part = (slope * colours).sum(0).add_(offset[0])
            alpha = filtered_part.sub_(CERTAIN).div_(1 - 2 * CERTAIN).clamp_(0, 1).numpy()
        yield top, bottom, alpha


def _coefficients(image: np.ndarray, foreground: np.ndarray, step: int, radius: int) -> torch.Tensor:
    """What the fast guided filter makes of every `step`-th pixel, (1,4,h,w).

    The filter's result is the first three, resized, times the colours of the picture, plus the fourth.
    kornia's `guided_blur` does the same, and takes 60 bytes for each pixel of the picture.
    """
    rows, columns = (_subsample(length, step) for length in foreground.shape)
    colours = torch.from_numpy(image[rows][:, columns].astype(np.float32)).div_(255).permute(2, 0, 1)  # (3,h,w)
    shown = torch.from_numpy(foreground[rows][:, columns])[None]
    products = (colours[:, None] * torch.cat([colours, shown])).flatten(0, 1)  # (12,h,w)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return box_blur(values[None], 2 * radius + 1, "reflect")[0]

    mean_colours, mean_shown = mean(colours), mean(shown)
    means = torch.cat([mean_colours, mean_shown])
    covariances = mean(products).unflatten(0, (3, 4)) - mean_colours[:, None] * means  # (3,4,h,w)
    variances, with_shown = covariances.permute(2, 3, 0, 1).split((3, 1), dim=-1)
    slope = torch.linalg.solve(variances + EPSILON * torch.eye(3), with_shown)[..., 0].permute(2, 0, 1)
    offset = mean_shown - (slope * mean_colours).sum(0, keepdim=True)
    return mean(torch.cat([slope, offset]))[None]


def _subsample(length: int, step: int) -> np.ndarray:
    """About every `step`-th of `length` pixels: those that lie nearest to where resizing puts them back."""
    number = max(length // step, 1)
    return (((2 * np.arange(number) + 1) * length + number * (1 - step)) // (2 * number)).clip(0, length - 1)


def _parts(height: int, width: int) -> Iterator[tuple[int, int]]:
    """The rows of a picture, some at once."""
    rows = max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def cut_out(image: Image.Image, foreground: np.ndarray) -> np.ndarray:
    """A picture without its background.

    Args:
        image: RGB.
        foreground: float32 (H,W), 0..1.

    Returns:
        uint8 RGBA (H,W,4); where alpha is between 0 and 255, the colours are freed of the background's.
    """
    height, width = foreground.shape
    result = np.empty((height, width, 4), np.uint8)
    for top, bottom in _parts(height, width):
        result[top:bottom, :, :3] = np.asarray(image.crop((0, top, width, bottom)))
    for top, bottom, alpha in _alphas(result[..., :3], foreground):
        result[top:bottom, :, 3] = (alpha * 255).round()
    _free_of_background(result)
    return result


def _free_of_background(picture: np.ndarray) -> None:
    """Take the background's part of a soft edge out of the colours of a picture, uint8 RGBA (H,W,4), in place."""
    height, width = picture.shape[:2]
    reduction = max(1, max(height, width) / _COLOUR_SIDE)
    size = max(1, round(width / reduction)), max(1, round(height / reduction))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    side = 2 * max(1, round(_COLOUR_RADIUS * max(size))) + 1

    def around(share: np.ndarray) -> np.ndarray:
        total = cv2.blur(small[..., :3] * share[..., None], (side, side)).reshape(*share.shape, 3)
        return total / np.maximum(cv2.blur(share, (side, side)), 1e-4).reshape(*share.shape, 1)

    share = small[..., 3] / 255
    means = torch.from_numpy(np.dstack([around(share), around(1 - share)])).permute(2, 0, 1)[None]  # (1,6,h,w)
    for top, bottom in _parts(height, width):
        part = picture[top:bottom]
        edge = (part[..., 3] > 0) & (part[..., 3] < 255)
        if edge.any():
            near = resize_rows(means, (height, width), top, bottom)[0].permute(1, 2, 0).numpy()[edge]  # (N,6)
            own, others, weight = near[:, :3], near[:, 3:], part[edge][:, 3:] / np.float32(255)
            freed = own + weight * (part[edge][:, :3] - weight * own - (1 - weight) * others)
            part[edge, :3] = freed.round().clip(0, 255)
