"""A trained model, from a picture to the class of each of its pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from petseg_lightning.data.picture_file import read_image
from petseg_lightning.errors import InputError
from petseg_lightning.inference.cutout import cut_out, foreground
from petseg_lightning.inference.member import Member
from petseg_lightning.inference.tiling import scaled, windows
from petseg_lightning.metrics.calibration import ExpectedOverlap
from petseg_lightning.pictures import class_colours, overlay

_AT_ONCE = 2**21  # probabilities that are computed at once
MAX_LOGITS = 2**30  # bytes of all windows of a picture
_CROPS = 16  # windows in the network at once, where pictures have several
Picture = Image.Image | np.ndarray | str | Path


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture, at the picture's own height H and width W.

    Args:
        image: the picture, RGB and upright.
        class_names: K names.
        rows: from the first row and the one after the last to their probabilities, float32 (K,rows,W), so that large
            pictures take little memory.
    """

    image: Image.Image
    class_names: tuple[str, ...]
    rows: Callable[[int, int], Tensor] = field(repr=False)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of every class and pixel, float32 (K,H,W), calibrated; their sum over K is 1."""
        found = np.empty((len(self.class_names), self.image.height, self.image.width), np.float32)
        for rows, probabilities in self._parts():
            found[:, rows] = probabilities
        return found

    @property
    def classes(self) -> np.ndarray:
        """The most likely class of each pixel, uint8 (H,W)."""
        return self._classes_and_confidence[0]

    @property
    def confidence(self) -> float:
        """The mean IoU that the probabilities promise, 0 to 1."""
        return self._classes_and_confidence[1]

    @property
    def mask(self) -> Image.Image:
        """The classes as a palette picture: a pixel's value is its class id, shown in the colour of the class."""
        picture = Image.fromarray(self.classes, "P")
        picture.putpalette(bytes.fromhex("".join(class_colours(self.class_names).values()).replace("#", "")))
        return picture

    @property
    def overlay(self) -> Image.Image:
        """The picture with its classes coloured over it, the background as it was."""
        colours = list(class_colours(self.class_names).values())
        return Image.fromarray(overlay(np.asarray(self.image), self.classes, colours))

    @property
    def cutout(self) -> Image.Image:
        """What is not background, RGBA with a soft edge."""
        shown = np.empty((self.image.height, self.image.width), np.float32)
        for rows, probabilities in self._parts():
            shown[rows] = foreground(probabilities.numpy(), self.class_names)
        return Image.fromarray(cut_out(self.image, shown))

    @cached_property
    def _classes_and_confidence(self) -> tuple[np.ndarray, float]:
        classes = np.empty((self.image.height, self.image.width), np.uint8)
        overlap: ExpectedOverlap | None = None
        for rows, probabilities in self._parts():
            classes[rows] = probabilities.max(dim=0).indices.byte()
            part = ExpectedOverlap.of(probabilities[None])
            overlap = part if overlap is None else overlap.with_part(part)
        assert overlap is not None  # a picture has pixels
        return classes, float(overlap.miou())

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows from top to bottom, with their probabilities, on the CPU."""
        number = max(1, _AT_ONCE // (len(self.class_names) * self.image.width))
        for top in range(0, self.image.height, number):
            bottom = min(top + number, self.image.height)
            yield slice(top, bottom), self.rows(top, bottom).cpu()


class Predictor:
    """A trained model, or an ensemble of several, whose probabilities are averaged.

    Args:
        members: one or more.
        tiling: auto, none, or the side of the windows in pixels; see `inference.tiling.windows`.

    Raises:
        InputError: they do not predict the same classes.
    """

    def __init__(self, members: Sequence[Member], tiling: int | str = "auto") -> None:
        self.tiling = tiling
        self.members, self.class_names = list(members), members[0].class_names
        for other in self.members:
            if other.class_names != self.class_names:
                raise InputError(
                    f"an ensemble is of models of the same classes, not of {', '.join(self.class_names)} and "
                    f"{', '.join(other.class_names)}; leave one of them out"
                )

    @property
    def forecast(self) -> dict[str, Any] | None:
        """What `metrics.forecast` has of the confidences; None of an ensemble or windows, which have others."""
        return self.members[0].forecast if len(self.members) == 1 and isinstance(self.tiling, str) else None

    @classmethod
    def load(
        cls,
        *paths: str | Path,
        device: str = "cpu",
        tta: str = "none",
        tiling: int | str = "auto",
        backend: str = "auto",
        trust_code: bool = False,
    ) -> Self:
        """The model of a run folder, a checkpoint, a bundle or an export; several paths are an ensemble.

        Args:
            paths: one or more.
            device: as torch names it.
            tta: none, flip or multiscale: views of a picture that are averaged.
            tiling: auto, none, or the side in pixels of overlapping windows.
            backend: torch, onnx or openvino; auto: torch, or what an export is for.
            trust_code: whether a file of torch.export, which is a program, may be loaded.

        Raises:
            InputError: nothing there that can be used.
        """
        return cls([Member.load(path, torch.device(device), tta, backend, trust_code) for path in paths], tiling)

    def __call__(self, picture: Picture) -> Prediction:
        """Predict a picture: a path, a Pillow image, or uint8 RGB (H,W,3). Raises InputError if it cannot be read."""
        if isinstance(picture, str | Path):
            image = read_image(Path(picture))
        else:
            image = picture.convert("RGB") if isinstance(picture, Image.Image) else Image.fromarray(picture)
        return self.finish(image, [logits[0] for logits in self.logits([image])])

    def logits(self, images: Sequence[Image.Image]) -> list[list[Tensor]]:
        """For each member the logits of each RGB image's windows, (T,K,S,S) at its own size: what takes the time."""
        places = [windows(*image.size, self.tiling) for image in images]
        parts = [(image, some, one) for image, some in zip(images, places, strict=True) for one in some]
        found: list[Tensor] = []
        for start in range(0, len(parts), _CROPS):
            crops = [image if len(some) == 1 else image.crop(one) for image, some, one in parts[start : start + _CROPS]]
            for number, member in enumerate(self.members):
                logits = member.logits(crops)
                if start == 0:
                    found.append(logits.new_empty(len(parts), *logits.shape[1:]))
                found[number][start : start + len(crops)] = logits
        return [list(logits.split([len(some) for some in places])) for logits in found]

    def require_room(self, width: int, height: int) -> None:
        """Raise InputError for a picture that is too much for its windows, before it is read."""
        number = len(windows(width, height, self.tiling))
        size = sum(number * len(m.class_names) * m.image_size**2 * 4 for m in self.members)
        if number > 1 and size > MAX_LOGITS:
            raise InputError(
                f"{number:,} windows of {width} x {height} pixels take {size / 2**30:.1f} GiB of memory, and "
                f"{MAX_LOGITS / 2**30:g} is the most; give a larger tiling="
            )

    def finish(self, image: Image.Image, logits: Sequence[Tensor]) -> Prediction:
        """The prediction of an image from the logits of its windows, (T,K,S,S) of each member."""
        size = image.height, image.width
        return Prediction(
            image, self.class_names, lambda top, bottom: self.probabilities(image, logits, size, (top, bottom))
        )

    def probabilities(
        self, image: Image.Image, logits: Sequence[Tensor], size: Sequence[int], rows: tuple[int, int] | None = None
    ) -> Tensor:
        """The calibrated probabilities (K,H,W) of an image at a size H, W, from the logits of its windows.

        `rows` are the first row and the one after the last that are wanted; None: all.
        """
        places = scaled(windows(*image.size, self.tiling), image.size, (size[1], size[0]))
        total, *others = (m.probabilities(one, places, size, rows) for m, one in zip(self.members, logits, strict=True))
        for other in others:
            total += other
        return total / len(self.members) if others else total
