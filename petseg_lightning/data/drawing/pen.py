"""Flat illustration with NumPy and OpenCV: smooth shapes, value noise, and a pen that paints and labels.

Shapes are polygons, float arrays (N, 2) of x to the right and y down, in the units of the pen that paints
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Shape = NDArray[np.float64]  # (N, 2)
Pixels = np.ndarray  # uint8 (H, W) or (H, W, 3)
Field = np.ndarray  # float32 (H, W)
T = TypeVar("T")

_SUBPIXEL_BITS = 4


def spline(points: ArrayLike, closed: bool = True, steps: int = 8) -> NDArray[np.float64]:
    """Uniform Catmull-Rom curve through `points` (N, D), `steps` samples for each of its segments."""
    knots = np.asarray(points, dtype=np.float64)
    around = np.concatenate([knots[-1:], knots, knots[:2]] if closed else [knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    before, start, end, after = (around[i : len(around) - 3 + i, None] for i in range(4))
    curve = start + 0.5 * t * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    curve = curve.reshape(-1, knots.shape[1])
    return curve if closed else np.concatenate([curve, knots[-1:]])


def symmetric(points: ArrayLike) -> Shape:
    """Smooth closed shape from its right half, listed from top to bottom."""
    right = np.asarray(points, dtype=np.float64)
    return spline(np.concatenate([right, mirrored(right[::-1])]))


def mirrored(shape: Shape) -> Shape:
    """The shape with left and right exchanged."""
    return shape * (-1, 1)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> Shape:
    """Ellipse about (x, y), turned by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([radius_x * np.cos(t), radius_y * np.sin(t)], axis=1) @ _rotation(angle).T + (x, y)


def box(left: float, top: float, right: float, bottom: float) -> Shape:
    """Upright rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def limb(joints: ArrayLike) -> Shape:
    """Stroke of varying width with round ends along `joints`, rows of (x, y, radius)."""
    curve = spline(joints, closed=False)
    path, radius = curve[:, :2], curve[:, 2:]
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = along[:, ::-1] * (-1, 1)
    t = np.linspace(0, np.pi, 10)[1:-1, None]
    last = path[-1] + radius[-1] * (np.cos(t) * across[-1] + np.sin(t) * along[-1])
    first = path[0] - radius[0] * (np.cos(t) * across[0] + np.sin(t) * along[0])
    return np.concatenate([path + radius * across, last, (path - radius * across)[::-1], first])


def fluffed(shape: Shape, length: float, spacing: float, rng: np.random.Generator) -> Shape:
    """The shape with tufts of about `length` all along its outline, one at every `spacing`."""
    closed = np.concatenate([shape, shape[:1]])
    walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    num_tufts = max(4, round(walked[-1] / spacing))
    at = np.linspace(0, walked[-1], 2 * num_tufts, endpoint=False)
    outline = np.stack([np.interp(at, walked, closed[:, axis]) for axis in (0, 1)], axis=1)
    outward = (np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0))[:, ::-1] * (1, -1)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    area = np.sum(outline[:, 0] * np.roll(outline[:, 1], -1) - outline[:, 1] * np.roll(outline[:, 0], -1))
    height = np.where(np.arange(2 * num_tufts) % 2, rng.uniform(0.5, 1.2, 2 * num_tufts), 0) * length
    droop = 0.4 * np.array([0, 1]) * height[:, None]
    return outline + outward * np.sign(area) * height[:, None] + droop


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def chosen(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float, octaves: int = 1) -> Field:
    """Smooth value noise in about -1..1 of this shape (H, W), with bumps `cell` pixels wide.

    Each further octave has half the width and half the strength.
    """
    height, width = shape
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        grid = rng.uniform(-1, 1, (int(height / size) + 2, int(width / size) + 2)).astype(np.float32)
        smooth = cv2.resize(grid, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
        total += smooth[:height, :width] / 2**octave
    return total


def blended(first: ArrayLike, second: ArrayLike, share: Field) -> Pixels:
    """Colours or pictures, 0..255, mixed by the `share` (H, W), 0..1, of the second: uint8 (H, W, 3)."""
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return (first + (second - first) * share[..., None]).astype(np.uint8)


@dataclass
class Canvas:
    """What is painted, and which of its pixels belong to the pet.

    Attributes:
        image: uint8 RGB (H, W, 3).
        labels: uint8 (H, W); each opaque stroke leaves `mark` where it paints.
        mark: 1 while the pet is painted, else 0.
    """

    image: Pixels
    labels: Pixels = field(init=False)
    mark: int = 0

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.image.shape[:2], dtype=np.uint8)


@dataclass(frozen=True)
class Pen:
    """Paints shapes given in its own units; `at` gives a pen in a frame inside this one.

    Attributes:
        canvas: what it paints on.
        matrix: (2, 3), from the pen's units to pixels.
    """

    canvas: Canvas
    matrix: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Pixels per unit."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0, flip: bool = False) -> Self:
        """A pen whose origin is (x, y), whose unit is `scale` of this one's, turned by `angle` radians."""
        turn = self.matrix[:, :2] @ _rotation(angle) * scale * (-1 if flip else 1, 1)
        return replace(self, matrix=np.column_stack([turn, self.matrix @ (x, y, 1.0)]))

    def coordinates(self) -> tuple[Field, Field]:
        """x and y (H, W) of every pixel in this pen's units."""
        height, width = self.canvas.labels.shape
        inverse = np.linalg.inv(self.matrix[:, :2])
        columns = np.arange(width)[None, :] - self.matrix[0, 2]
        rows = np.arange(height)[:, None] - self.matrix[1, 2]
        x, y = ((row[0] * columns).astype(np.float32) + (row[1] * rows).astype(np.float32) for row in inverse)
        return x, y

    def paint(
        self,
        shapes: Shape | Sequence[Shape],
        colour: ArrayLike,
        shade: float = 0.0,
        clip: Pixels | None = None,
    ) -> Pixels:
        """Paints shapes as one opaque part and marks it in the labels.

        Args:
            shapes: one shape, or several that make one part.
            colour: RGB (3,), or a texture (H, W, 3) of the canvas's size, 0..255.
            shade: how much darker the part is at its lower right, 0..1, which makes it look round.
            clip: mask (H, W) outside of which nothing is painted.

        Returns:
            The painted mask, uint8 (H, W) of 0 and 255.
        """
        mask, window = self._mask([shapes] if isinstance(shapes, np.ndarray) else shapes)
        if clip is not None:
            mask[window] &= clip[window]
        inside = mask[window] > 0
        image, labels = self.canvas.image[window], self.canvas.labels[window]
        paint = np.asarray(colour)
        paint = paint[window] if paint.ndim == 3 else np.broadcast_to(paint, image.shape)
        if shade and min(inside.shape) > 3:
            paint = paint * (1 - shade * _away_from_light(mask[window]))[..., None]
        np.copyto(image, paint, casting="unsafe", where=inside[..., None])
        labels[inside] = self.canvas.mark
        return mask

    def glaze(self, shape: Shape, colour: ArrayLike, opacity: float, blur: float, clip: Pixels | None = None) -> None:
        """Tints a shape with soft edges (`blur` in units), without a trace in the labels: shadows, blush."""
        size = max(1, round(blur * self.scale))
        mask, window = self._mask([shape], margin=size)
        share = cv2.blur(cv2.blur(mask[window], (size, size)), (size, size))
        if clip is not None:
            share = share & clip[window]
        image = self.canvas.image[window]
        image[:] = blended(image, colour, share.astype(np.float32) * (opacity / 255))

    def _mask(self, shapes: Sequence[Shape], margin: int = 0) -> tuple[Pixels, tuple[slice, slice]]:
        """255 inside of any of the shapes, and the window of the canvas that holds them and a margin."""
        mask = np.zeros(self.canvas.labels.shape, dtype=np.uint8)
        polygons = [shape @ self.matrix[:, :2].T + self.matrix[:, 2] for shape in shapes]
        for polygon in polygons:
            fixed_point = np.rint(polygon * 2**_SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(mask, [fixed_point], 255, shift=_SUBPIXEL_BITS)
        corners = np.concatenate(polygons) if polygons else np.zeros((1, 2))
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1 - margin, 0, np.subtract(mask.shape[::-1], 1))
        high = np.maximum(np.ceil(corners.max(axis=0)).astype(int) + 2 + margin, low + 1)
        return mask, np.s_[low[1] : high[1], low[0] : high[0]]


def _away_from_light(mask: Pixels) -> Field:
    """0..1 (H, W): 0 deep inside and at the upper left edge, 1 at the lower right edge."""
    height, width = mask.shape
    reach = max(1, min(height, width) // 4)
    padded = cv2.copyMakeBorder(mask, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    soft = cv2.blur(cv2.blur(padded, (reach, reach)), (reach, reach))
    moved = soft[reach + reach // 2 :, reach + reach // 2 :][:height, :width]
    return 1 - moved.astype(np.float32) / 255
