"""What a picture shows, without its background: an alpha channel with soft edges, and colours to go with it.

He, Sun, Tang, "Guided Image Filtering", TPAMI 2013, and "Fast Guided Filter", 2015 (kornia's); Forte, "Approximate Fast
Foreground Colour Estimation", ICIP 2021.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from kornia.filters import guided_blur

BORDER_SHARE = 0.5  # of the border class, which lies on both sides of the outline
RADIUS = 0.016  # of the longer side: how far an edge of the picture may be from that of the probabilities
EPSILON = 1e-4  # variance of colours, from 0 to 1, that is an edge
CERTAIN = 0.2  # alpha below it is 0, and above 1 minus it 1
_WORKING_SIDE = 250  # pixels, to which larger pictures are reduced for the coefficients of the filter
_COLOUR_SIDE = 500  # pixels, to which larger pictures are reduced for the colours around a pixel
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
    height, width = foreground.shape
    step = max(1, max(height, width) // _WORKING_SIDE)
    radius = max(1, round(RADIUS * max(height, width) / step))
    if min(height, width) <= 2 * radius * step:  # too thin for the filter's window
        return foreground
    guidance = torch.tensor(image).permute(2, 0, 1)[None].float().div_(255)
    size = (2 * radius * step + 1,) * 2
    alpha = guided_blur(guidance, torch.from_numpy(foreground)[None, None], size, EPSILON, subsample=step)[0, 0]
    return alpha.sub_(CERTAIN).div_(1 - 2 * CERTAIN).clamp_(0, 1).numpy()


def cut_out(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """A picture without its background.

    Args:
        image: uint8 (H,W,3).
        foreground: float32 (H,W), 0..1.

    Returns:
        uint8 RGBA (H,W,4); where alpha is between 0 and 255, the colours are freed of the background's.
    """
    alpha = soft_alpha(image, foreground)
    return np.dstack([_own_colours(image, alpha), (alpha * 255).round().astype(np.uint8)])


def _own_colours(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours of the foreground, uint8 (H,W,3): those of the picture, less the background's part of a soft edge."""
    edge = (alpha > 0) & (alpha < 1)
    if not edge.any():
        return image
    height, width = alpha.shape
    reduction = max(1, max(height, width) / _COLOUR_SIDE)
    size = max(1, round(width / reduction)), max(1, round(height / reduction))
    small, share = (cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) for pixels in (image, alpha))
    side = 2 * max(1, round(_COLOUR_RADIUS * max(size))) + 1

    def around(share: np.ndarray) -> np.ndarray:
        total = cv2.blur(small * share[..., None], (side, side)).reshape(small.shape)
        mean = total / np.maximum(cv2.blur(share, (side, side)), 1e-4).reshape(*share.shape, 1)
        return cv2.resize(mean.round().clip(0, 255).astype(np.uint8), (width, height))[edge].astype(np.float32)

    own, others, weight = around(share), around(1 - share), alpha[edge][:, None]
    colours = image.copy()
    colours[edge] = (own + weight * (image[edge] - weight * own - (1 - weight) * others)).round().clip(0, 255)
    return colours
