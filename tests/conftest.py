"""Pets on disk: a handful drawn for each test, and the real ones where they are."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BREEDS = {"Abyssinian": 1, "Maine_Coon": 1, "beagle": 2, "american_bulldog": 2}  # species: 1 = cat, 2 = dog
COLOURS = np.array([[0, 0, 0], [220, 120, 40], [30, 90, 160], [240, 240, 240]], np.uint8)  # of trimap values


def trimap(height: int, width: int, inset: int) -> np.ndarray:
    """A rectangle of pet (1) with a border (3) of two pixels, in background (2)."""
    mask = np.full((height, width), 2, np.uint8)
    mask[inset:-inset, inset:-inset] = 3
    mask[inset + 2 : -inset - 2, inset + 2 : -inset - 2] = 1
    return mask


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """What is remembered from run to run is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache_home")))
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A door configures logging for its whole process; here others follow in it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def tiny_pets(tmp_path):
    """(trainval, test: pictures per breed, root) -> a root in the official layout; no two pictures are equal."""

    def write(trainval: int = 5, test: int = 2, root: Path = tmp_path / "pets") -> Path:
        folder = root / "oxford-iiit-pet"
        for part in ("images", "annotations/trimaps"):
            (folder / part).mkdir(parents=True)
        lists: dict[str, str] = {"trainval": "", "test": ""}
        for class_id, (breed, species) in enumerate(BREEDS.items(), 1):
            for number in range(trainval + test):
                name = f"{breed}_{number}"
                mask = trimap(40 + 4 * class_id, 52 - 3 * number, inset=4 + class_id + number % 3)
                picture = COLOURS[mask]
                picture[0:6, 0:6] = (25 * number % 256, 60 * class_id, 128)
                Image.fromarray(picture).save(folder / "images" / f"{name}.jpg", quality=95)
                Image.fromarray(mask).save(folder / "annotations" / "trimaps" / f"{name}.png")
                lists["trainval" if number < trainval else "test"] += f"{name} {class_id} {species} {class_id}\n"
        for split, lines in lists.items():
            (folder / "annotations" / f"{split}.txt").write_text(lines)
        return root

    return write


@pytest.fixture(scope="session")
def pets_root() -> Path:
    """The folder of the real oxford-iiit-pet/, whole or in part."""
    root = Path(os.environ.get("PETSEG_DATA_ROOT") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / "oxford-iiit-pet").is_dir():
        pytest.skip(f"no Oxford-IIIT Pet in {root}; PETSEG_DATA_ROOT=<folder> says where it is")
    return root
