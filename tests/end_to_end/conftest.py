import functools
from pathlib import Path

import pytest

from petseg_lightning.config import compose
from petseg_lightning.training import train

SMALL = (
    "data=synthetic",
    "data.num_trainval=42",
    "data.num_test=11",  # odd: two devices do not share it evenly
    "data.picture_size=64",
    "data.image_size=32",
    "data.batch_size=4",
    "data.val_fraction=0.2",
    "data.num_workers=0",
    "model.base_channels=4",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "~callbacks.progress_bar",
    "~callbacks.model_summary",
)


@pytest.fixture(scope="session")
def small_overrides(tmp_path_factory) -> list[str]:
    """Overrides of a training that takes seconds, on drawn pets that all tests share."""
    return [*SMALL, f"data.root={tmp_path_factory.mktemp('pets')}"]


@pytest.fixture(scope="session")
def train_small(small_overrides):
    """(run folder, further overrides...) -> what metrics.json holds."""

    def run(folder: Path, *overrides: str) -> dict:
        folder.mkdir(parents=True, exist_ok=True)
        return train(compose("train", [*small_overrides, *overrides], output_dir=folder))

    return run


@pytest.fixture(scope="session")
def trained_run(train_small, tmp_path_factory):
    """(reading) -> the folder of a small training in that reading, made once, with scores to the bit."""

    @functools.cache
    def run(target: str = "trimap") -> Path:
        folder = tmp_path_factory.mktemp(f"run_{target}")
        train_small(folder, f"data.target={target}", "compute=exact")
        return folder

    return run
