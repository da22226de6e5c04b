"""Drawn pets on disk, in the layout of Oxford-IIIT Pet, and as a data module."""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Unpack

import cv2
import numpy as np
from filelock import FileLock

from petseg_lightning.data.datamodule import LoaderOptions
from petseg_lightning.data.drawing.breeds import BREEDS
from petseg_lightning.data.drawing.picture import draw_picture
from petseg_lightning.data.pets import OxfordPetDataModule
from petseg_lightning.data.presence import FOLDER, require_pets
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing_folder

log = logging.getLogger(__name__)

FORMAT = 2  # to be raised with every change of what is drawn or how it is laid out
MANIFEST = "synthetic.json"
SPLITS = ("trainval", "test")
MIN_PICTURE_SIZE = 8

_JPEG_QUALITY = 90
_LIST_HEADER = (
    "#Image CLASS-ID SPECIES BREED ID\n"
    f"#ID: 1:{len(BREEDS)} Class ids\n"
    "#SPECIES: 1:Cat 2:Dog\n"
    "#BREED ID: within the species\n"
)


class SyntheticPetDataModule(OxfordPetDataModule):
    """Pets drawn into `<root>/oxford-iiit-pet` from `synthetic_seed`, and read like the real ones.

    With `draw=False` they must be there, whatever they were drawn from.
    """

    complete_counts: ClassVar = {}

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        num_trainval: int = 640,
        num_test: int = 160,
        picture_size: int = 160,
        synthetic_seed: int = 0,
        target: str = "trimap",
        border: str | None = None,
        draw: bool = True,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(root, target, border, download=False, **options)
        self.draw = draw
        self.num_trainval = num_trainval
        self.num_test = num_test
        self.picture_size = picture_size
        self.synthetic_seed = synthetic_seed

    def prepare_data(self) -> None:
        """Draw the pets, unless they are there. Raises what write_synthetic_pets does, or InputError without them."""
        if not self.draw:
            require_pets(self.root, download=False)
            return
        write_synthetic_pets(self.root, self.num_trainval, self.num_test, self.picture_size, self.synthetic_seed)


def write_synthetic_pets(root: Path, num_trainval: int, num_test: int, picture_size: int, seed: int) -> None:
    """Draws pets into `<root>/oxford-iiit-pet`, in the layout of Oxford-IIIT Pet.

    A picture depends on the seed, its split and its number alone, so more pictures never change earlier ones.
    The folder appears whole or not at all; one with the same parameters is kept, one with others is replaced.

    Args:
        root: the folder is made inside of it.
        num_trainval: pictures for training and validation, at least 1.
        num_test: pictures for the test, at least 1.
        picture_size: longer side in pixels, at least MIN_PICTURE_SIZE.
        seed: of all pictures, not negative.

    Raises:
        InputError: a value is out of range, the folder exists and was not written by this function, or it
            cannot be written.
    """
    values = {"num_trainval": num_trainval, "num_test": num_test, "picture_size": picture_size, "seed": seed}
    _check(values)
    manifest = {"generator": __name__, "format": FORMAT, **values}
    folder = root / FOLDER
    if _read_manifest(folder) == manifest:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{FOLDER}.lock"):
            if _read_manifest(folder) != manifest:
                drawings = [
                    _Drawing(split, number)
                    for split, count in zip(SPLITS, (num_trainval, num_test), strict=True)
                    for number in range(count)
                ]
                _write(folder, manifest, drawings, picture_size, seed)
    except OSError as error:
        raise InputError(
            f"cannot write drawn pets to {folder} ({error}); data.root must be a folder you may write to"
        ) from error


def _check(values: dict[str, int]) -> None:
    lowest = {"num_trainval": 1, "num_test": 1, "picture_size": MIN_PICTURE_SIZE, "seed": 0}
    low = [f"{name}={values[name]} is below {least}" for name, least in lowest.items() if values[name] < least]
    if low:
        raise InputError(f"pets cannot be drawn with {', '.join(low)}; give at least that")


def _read_manifest(folder: Path) -> dict[str, object] | None:
    """What `folder` was written from; None where there is no such folder."""
    if not folder.exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["generator"] == __name__:
            return manifest
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(
        f"{folder} does not hold drawn pets (no {MANIFEST} of theirs) and is not overwritten; "
        "give another folder as data.root, or data=oxford_pet to use what is there"
    )


@dataclass(frozen=True)
class _Drawing:
    """A picture to be drawn: the breeds take turns over the numbers, from 0, of a split."""

    split: str
    number: int

    @property
    def class_index(self) -> int:
        return self.number % len(BREEDS)

    @property
    def ordinal(self) -> int:
        """Within the breed: odd in trainval, even in test, so that neither depends on the other's size."""
        return 2 * (self.number // len(BREEDS)) + 1 + SPLITS.index(self.split)

    @property
    def name(self) -> str:
        return f"{BREEDS[self.class_index].name}_{self.ordinal}"

    @property
    def row(self) -> str:
        """Its line in the lists: name, class id, species, and breed id within the species."""
        breed = BREEDS[self.class_index]
        breed_id = sum(other.is_cat == breed.is_cat for other in BREEDS[: self.class_index + 1])
        return f"{self.name} {self.class_index + 1} {1 if breed.is_cat else 2} {breed_id}\n"

    def write(self, folder: Path, size: int, seed: int) -> None:
        rng = np.random.default_rng([seed, SPLITS.index(self.split), self.number])
        image, trimap = draw_picture(rng, BREEDS[self.class_index], size)
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
        (folder / "images" / f"{self.name}.jpg").write_bytes(jpeg.tobytes())
        (folder / "annotations" / "trimaps" / f"{self.name}.png").write_bytes(cv2.imencode(".png", trimap)[1].tobytes())


def _write(folder: Path, manifest: dict[str, object], drawings: list[_Drawing], size: int, seed: int) -> None:
    """Draws next to `folder` and puts the result in its place; what an interrupted run left is removed."""
    log.info("Drawing %s pets into %s", f"{len(drawings):,}", folder)
    with replacing_folder(folder) as partial:
        trimaps = partial / "annotations" / "trimaps"
        for directory in (partial / "images", trimaps):
            directory.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda drawing: drawing.write(partial, size, seed), drawings))
        by_breed = sorted(drawings, key=lambda drawing: (drawing.class_index, drawing.ordinal))
        for split in SPLITS:
            rows = (drawing.row for drawing in by_breed if drawing.split == split)
            (trimaps.parent / f"{split}.txt").write_text("".join(rows))
        (trimaps.parent / "list.txt").write_text(_LIST_HEADER + "".join(drawing.row for drawing in by_breed))
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
