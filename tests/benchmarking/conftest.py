import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petseg_lightning.benchmarking.run import benchmark
from petseg_lightning.config import compose

TINY = (
    "data=synthetic",
    "data.num_trainval=40",
    "data.num_test=12",
    "data.image_size=32",
    "data.picture_size=48",
    "data.batch_size=4",
    "data.num_workers=0",
    "model.base_channels=4",
    "trainer=cpu",
    "~callbacks.progress_bar",
    "~callbacks.model_summary",
    "rounds=2",
    "seconds=0.01",
)


@pytest.fixture(autouse=True)
def own_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache_home"))


@pytest.fixture(scope="session")
def tiny_overrides(tmp_path_factory) -> list[str]:
    """Overrides of a benchmark of seconds, on drawn pets that all tests share."""
    return [*TINY, f"data.root={tmp_path_factory.mktemp('pets')}"]


@pytest.fixture
def measured(tiny_overrides, tmp_path) -> Callable[..., tuple[dict[str, Any], Path]]:
    """(overrides...) -> what benchmark.json holds, and its folder."""

    def run(*overrides: str) -> tuple[dict[str, Any], Path]:
        folder = tmp_path / "run"
        folder.mkdir()
        results = benchmark(compose("benchmark", [*tiny_overrides, *overrides], output_dir=folder))
        written = json.loads((folder / "benchmark.json").read_text())
        assert written == results
        return written, folder

    return run
