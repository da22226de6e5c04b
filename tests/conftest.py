"""Pets on disk: a handful drawn for each test, and the real ones where they are."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session", autouse=True)
def absl_leaves_the_streams_open():
    """Its handler closes the stream that it met when it was imported, here pytest's, when Hydra configures logging."""
    from absl import logging as absl_logging

    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


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
def make_module() -> Callable[..., Any]:
    """(seed, target, image size, further entries of the description) -> a model with weights of chance."""

    import torch

    from petseg_lightning.data.targets import pet_target
    from petseg_lightning.inference.checkpoint import build_network
    from petseg_lightning.module import SegmentationModule

    def make(seed: int = 0, target: str = "trimap", image_size: int = 32, **further):
        torch.manual_seed(seed)
        classes = pet_target(target)
        model = {"_target_": "petseg_lightning.models.unet.UNet", "base_channels": 4, "depth": 2}
        model |= {"last_channels": 4, "skip_connections": True}
        preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
        description = {
            "version": "1.0",
            "model": model,
            "target": {key: list(v) if isinstance(v, tuple) else v for key, v in vars(classes).items()},
            "preprocessing": {**preprocessing, "image_size": image_size},
            "data": {"_target_": "petseg_lightning.data.pets.OxfordPetDataModule", "root": "/home/somebody/pets"},
            **further,
        }
        network = build_network(model, len(classes.class_names))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # as after a training
                torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(layer.running_var, 0.02, 0.1)  # so that it is not undecided
        return SegmentationModule(
            network, torch.nn.Identity(), classes, description=description, **preprocessing
        ).eval()

    return make


@pytest.fixture
def make_checkpoint(make_module, tmp_path) -> Callable[..., Path]:
    """(name, arguments of make_module) -> the path of a checkpoint."""
    import torch

    from petseg_lightning.segmenter import CHECKPOINT_KEY

    def make(name: str = "a.ckpt", **arguments) -> Path:
        module = make_module(**arguments)
        path = tmp_path / name
        torch.save({"epoch": 0, "state_dict": module.state_dict(), CHECKPOINT_KEY: module.description}, path)
        return path

    return make


@pytest.fixture(scope="session")
def pets_root() -> Path:
    """The folder of the real oxford-iiit-pet/, whole or in part."""
    root = Path(os.environ.get("PETSEG_DATA_ROOT") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / "oxford-iiit-pet").is_dir():
        pytest.skip(f"no Oxford-IIIT Pet in {root}; PETSEG_DATA_ROOT=<folder> says where it is")
    return root
