"""A picture being painted, and the things that may stand in it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from petseg_lightning.data.drawing.breeds import BREEDS, WHITE, Colour
from petseg_lightning.data.drawing.pen import (
    Canvas,
    Field,
    Pen,
    Shape,
    blended,
    box,
    chosen,
    ellipse,
    limb,
    noise,
    symmetric,
)
from petseg_lightning.data.drawing.pets import COLLARS

SKIES = ((112, 170, 216), (150, 190, 220), (236, 190, 150), (170, 176, 190))
WALLS = ((222, 208, 186), (176, 198, 204), (206, 186, 192), (184, 196, 168), (232, 224, 210), (120, 140, 152))
WOODS = ((176, 128, 84), (146, 104, 70), (206, 168, 122), (110, 80, 60))
TEXTILES = ((172, 84, 78), (84, 112, 150), (96, 130, 106), (196, 166, 116), (120, 96, 130), (88, 84, 86))
GREENS = ((104, 152, 72), (84, 134, 64), (134, 170, 84), (66, 112, 66))
LEAVES = ((196, 116, 48), (172, 74, 44), (214, 160, 64), (128, 90, 50), (120, 130, 62))
PETALS = ((236, 200, 74), (232, 232, 240), (208, 104, 130), (150, 120, 196))
SHADOW = (34, 28, 36)


class Scene:
    """A picture being painted, whose unit is its longer side.

    Attributes:
        pen: paints in that unit, from the upper left corner.
        width, height: of the picture.
        horizon: y at which the ground begins.
    """

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.pixels = canvas.labels.shape
        longer = max(self.pixels)
        self.rng = rng
        self.height, self.width = (side / longer for side in self.pixels)
        self.pen = Pen(canvas, np.array([[longer, 0, 0], [0, longer, 0]], dtype=np.float64))
        self.horizon = self.height * rng.uniform(0.4, 0.62)

    def pick(self, colours: Sequence[Colour]) -> NDArray[np.float64]:
        """One of the colours, slightly off."""
        return np.clip(np.asarray(chosen(self.rng, colours)) + self.rng.normal(0, 7, 3), 0, 255)

    def noise(self, cell: float, octaves: int = 1) -> Field:
        """Value noise (H, W) over the whole picture, in about -1..1."""
        return noise(self.rng, self.pixels, cell * self.pen.scale, octaves)

    def fill(
        self,
        top: float,
        bottom: float,
        colours: tuple[ArrayLike, ArrayLike],
        grain: float,
        cell: float = 0.02,
    ) -> None:
        """A band over the whole width that fades from the first of two colours to the second."""
        band = self.pen.canvas.image[round(top * self.pen.scale) : round(bottom * self.pen.scale)]
        rough = grain * noise(self.rng, band.shape[:2], cell * self.pen.scale, octaves=3)
        fade = np.linspace(0, 1, len(band), dtype=np.float32)[:, None]
        band[:] = np.clip(blended(*colours, np.broadcast_to(fade, rough.shape)) + rough[..., None], 0, 255)

    def scatter(self, count: int, top: float, bottom: float) -> NDArray[np.float64]:
        """Random points (count, 2) between two heights, far ones first."""
        points = self.rng.uniform((-0.02, top), (self.width + 0.02, bottom), (count, 2))
        return points[np.argsort(points[:, 1])]

    def nearness(self, y: float) -> float:
        """Size of things that stand at `y`: 0.35 at the horizon, 1 at the lower edge."""
        return float(0.35 + 0.65 * np.clip((y - self.horizon) / (self.height - self.horizon), 0, 1))

    def ground_shadow(self, x: float, y: float, radius: float) -> None:
        """The soft shadow of something of this radius that stands at (x, y)."""
        self.pen.glaze(ellipse(x, y, radius, 0.22 * radius), SHADOW, 0.45, 0.25 * radius)


def toned(colour: ArrayLike, tone: float) -> NDArray[np.float64]:
    """The colour, lighter for a tone above 1 and darker below."""
    return np.clip(np.multiply(colour, tone), 0, 255)


# ---- things ------------------------------------------------------------------------------------------------


def blade(scene: Scene, x: float, y: float, length: float) -> Shape:
    """A blade of grass whose root is at (x, y)."""
    lean = scene.rng.normal(0, 0.25)
    side = np.array([(-0.07, 0), (0.3 * lean - 0.05, -0.6), (lean, -1), (0.3 * lean + 0.05, -0.6), (0.07, 0)])
    return length * side + (x, y)


def leaf(scene: Scene, x: float, y: float, size: float) -> Shape:
    """A fallen leaf, `size` being half its length."""
    turn = scene.rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = 0.42 * along[::-1] * (-1, 1)
    return size * np.array([-along, across - 0.3 * along, across + 0.3 * along, along, -across]) + (x, y)


def draw_flower(scene: Scene, x: float, y: float, size: float) -> None:
    """A blossom about (x, y)."""
    turns = np.linspace(0, 2 * np.pi, 5, endpoint=False)
    petals = [ellipse(x + size * np.cos(t), y + size * np.sin(t), 0.7 * size, 0.7 * size) for t in turns]
    scene.pen.paint(petals, scene.pick(PETALS))
    scene.pen.paint(ellipse(x, y, 0.6 * size, 0.6 * size), (226, 170, 60))


def draw_ball(scene: Scene, x: float, y: float, size: float) -> None:
    """A toy that lies at (x, y)."""
    scene.ground_shadow(x, y, 0.5 * size)
    ball = scene.pen.paint(ellipse(x, y - 0.45 * size, 0.45 * size, 0.45 * size), scene.pick(COLLARS), 0.45)
    stripe = limb([(x - 0.5 * size, y - 0.5 * size, 0.1 * size), (x + 0.5 * size, y - 0.35 * size, 0.1 * size)])
    scene.pen.paint(stripe, WHITE, 0.3, clip=ball)


def draw_cushion(scene: Scene, x: float, y: float, size: float) -> None:
    """Something soft in the colour of a coat: not everything furry is a pet."""
    colour = scene.pick([breed.coat for breed in BREEDS])
    scene.ground_shadow(x, y, 0.6 * size)
    half, high = 0.55 * size, 0.75 * size
    outline = symmetric([(0, -0.9), (1, -1), (0.85, -0.5), (1, 0), (0, -0.06)]) * (half, high) + (x, y)
    cushion = scene.pen.paint(outline, colour, 0.4)
    dots = [ellipse(u, v, 0.05 * size, 0.05 * size) for u, v in scene.scatter(30, y - high, y)]
    scene.pen.paint(dots, toned(colour, 0.8), clip=cushion)


def draw_plant(scene: Scene, x: float, y: float, size: float) -> None:
    """A pot plant that stands at (x, y)."""
    scene.ground_shadow(x, y, 0.4 * size)
    for angle in np.linspace(-1.2, 1.2, 7) + scene.rng.normal(0, 0.12, 7):
        reach = 0.7 * size * np.array([np.sin(angle), -np.cos(angle)])
        root = np.array([x, y - 0.4 * size])
        frond = limb([(*root, 0.01 * size), (*(root + reach * (0.5, 0.7)), 0.1 * size), (*(root + reach), 0)])
        scene.pen.paint(frond, scene.pick(GREENS), 0.35)
    pot = np.array([(-0.26, -0.45), (0.26, -0.45), (0.2, 0), (-0.2, 0)]) * size + (x, y)
    scene.pen.paint(pot, scene.pick(((190, 104, 72), (224, 220, 212), (84, 108, 128))), 0.4)


def draw_things(scene: Scene, things: Sequence[Callable[[Scene, float, float, float], None]], most: int) -> None:
    """At most so many of these things on the ground."""
    for x, y in scene.scatter(int(scene.rng.integers(most + 1)), scene.horizon + 0.05, scene.height):
        chosen(scene.rng, things)(scene, x, y, scene.rng.uniform(0.12, 0.3) * scene.nearness(y))


# ---- things in front of a pet of height `size` whose feet are at (x, foot) ------------------------------


def _tall_grass(scene: Scene, x: float, foot: float, size: float) -> None:
    green = scene.pick(GREENS)
    for offset in scene.rng.normal(0, 0.5 * size, 34):
        length = scene.rng.uniform(0.2, 0.5) * size
        scene.pen.paint(
            blade(scene, x + offset, foot + 0.04 * size, length), toned(green, scene.rng.uniform(0.7, 1.25))
        )


def _fence(scene: Scene, x: float, foot: float, size: float) -> None:  # noqa: ARG001
    colour, top = scene.pick([WHITE, *WOODS]), foot - scene.rng.uniform(0.2, 0.4) * size
    spacing = scene.rng.uniform(0.1, 0.16)
    rails = [box(-0.1, y, 1.1, y + 0.022) for y in (top + 0.05, max(foot - 0.04, top + 0.12))]
    scene.pen.paint(rails, toned(colour, 0.9), 0.2)
    for left in np.arange(-scene.rng.uniform(0, spacing), 1, spacing):
        right, bottom = left + 0.32 * spacing, foot + 0.08 * size
        point = ((left + right) / 2, top - 0.02)
        picket = np.array([(left, bottom), (left, top), point, (right, top), (right, bottom)])
        scene.pen.paint(picket, colour, 0.25)


def _cardboard_box(scene: Scene, x: float, foot: float, size: float) -> None:
    half, top = 0.5 * size, foot - scene.rng.uniform(0.22, 0.36) * size
    card = scene.pick(((196, 152, 104), (176, 132, 88)))
    bottom = foot + 0.1 * size
    scene.pen.paint(box(x - half, top, x + half, bottom), card, 0.2)
    for side in (-1, 1):
        flap = np.array([(0, 0), (side * half, 0), (side * 1.25 * half, 0.1 * size), (side * 0.2 * half, 0.1 * size)])
        scene.pen.paint(flap + np.array([x, top]), toned(card, 1.12), 0.2)
    scene.pen.paint(box(x - 0.06 * size, top, x + 0.06 * size, bottom), toned(card, 0.88))


def _front_cushion(scene: Scene, x: float, foot: float, size: float) -> None:
    side = scene.rng.choice([-1, 1])
    draw_cushion(scene, x + side * scene.rng.uniform(0.15, 0.4) * size, foot + 0.06, 0.6 * size)


def _front_plant(scene: Scene, x: float, foot: float, size: float) -> None:
    side = scene.rng.choice([-1, 1])
    draw_plant(scene, x + side * scene.rng.uniform(0.3, 0.5) * size, foot + 0.06, 0.9 * size)


OCCLUDERS: tuple[Callable[[Scene, float, float, float], None], ...] = (
    _tall_grass, _fence, _cardboard_box, _front_cushion, _front_plant,
)  # fmt: skip
