"""Pictures of pictures: class colours, overlays, panels."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from itertools import chain, count
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from petseg_lightning.metrics.confusion import IGNORE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette, which the colour-blind can tell apart
_COLOURS = {
    "background": "#5f6b76",
    "pet": "#e69f00",
    "cat": "#e69f00",
    "dog": "#0072b2",
    "border": "#56b4e9",
}
_OTHERS = ("#009e73", "#d55e00", "#cc79a7", "#f0e442", "#56b4e9", "#e69f00", "#0072b2")
ERROR_COLOUR = "#d62839"
_AT_ONCE = 2**20  # pixels that are coloured at once, so that large pictures take little memory


def class_colours(class_names: Sequence[str]) -> dict[str, str]:
    """A colour, as #rrggbb, for each class, all different."""
    own: dict[str, str] = {}
    for name in class_names:
        if name in _COLOURS and _COLOURS[name] not in own.values():
            own[name] = _COLOURS[name]
    turns = (hsv_to_rgb(i * 0.618 % 1, 0.45 + 0.4 * (i % 2), 0.8) for i in count())
    free = (colour for colour in chain(_OTHERS, map(_hex, turns)) if colour not in own.values())
    return {name: own.get(name) or next(free) for name in class_names}


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour)


def overlay(image: np.ndarray, classes: np.ndarray, colours: Sequence[str], opacity: float = 0.6) -> np.ndarray:
    """Colour the classes over a picture; the background keeps its own colours, ignored pixels darken.

    Args:
        image: uint8 (H,W,3).
        classes: integer (H,W), 0..K-1 or 255.
        colours: K of #rrggbb; the colour of `background` is left out.
        opacity: 0..1, of the class colours.

    Returns:
        uint8 (H,W,3).
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = [ImageColor.getrgb(colour) for colour in colours]
    weight = np.full((256, 1), opacity, np.float32)
    for class_id, colour in enumerate(colours):
        if colour == _COLOURS["background"]:
            weight[class_id] = 0
    coloured = np.empty_like(image)
    rows = max(1, _AT_ONCE // image.shape[1])
    for top in range(0, len(image), rows):
        part, ids = image[top : top + rows], classes[top : top + rows]
        coloured[top : top + rows] = (part * (1 - weight[ids]) + table[ids] * weight[ids]).round()
    return coloured


def errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The picture in grey with every wrong, not ignored pixel in red: uint8 (H,W,3)."""
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB")) // 2 + 64
    wrong = (truth != prediction) & (truth != IGNORE)
    grey[wrong] = ImageColor.getrgb(ERROR_COLOUR)
    return grey


def panel(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], tile: int = 160) -> Image.Image:
    """Pictures in a grid with a title above each column, every picture scaled to `tile` pixels."""
    gap, header = 6, 26
    width, height = len(titles) * (tile + gap) + gap, header + len(rows) * (tile + gap)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for column, title in enumerate(titles):
        left = gap + column * (tile + gap)
        draw.text((left + tile / 2, header / 2), title, fill="black", font=font, anchor="mm")
        for row, pictures in enumerate(rows):
            scaled = Image.fromarray(pictures[column]).resize((tile, tile), Image.Resampling.BILINEAR)
            sheet.paste(scaled, (left, header + row * (tile + gap)))
    return sheet


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """A confusion matrix of counts (K,K), row = truth: shares of each row, with the counts below them."""
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 2.2 + 1.0 * len(class_names)
    figure = Figure(figsize=(side, side * 0.9), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{share:.1%}\n{matrix[row, column]:,}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if share > 0.5 else "black",
        )
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix (pixels)")
    return figure
