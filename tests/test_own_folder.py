"""Runs that start in the same second."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks

from petseg_lightning.config import config_dir
from petseg_lightning.own_folder import RANKS


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """(overrides) -> the folder in which Hydra lets a run write that starts in the one second of this test."""
    for rank in RANKS:
        monkeypatch.delenv(rank, raising=False)

    def start(*overrides: str) -> Path:
        cfg = compose("train", list(overrides), return_hydra_config=True)
        cfg.hydra.overrides.hydra = [override for override in overrides if override.startswith("hydra.")]
        cfg.hydra.run.dir = str(tmp_path / "runs" / "2026-01-31_12-00-00")
        Callbacks(cfg).on_run_start(config=cfg, config_name="train")
        return Path(cfg.hydra.run.dir)

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield start


def test_runs_of_the_same_second_have_folders_of_their_own(run_folder, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: run_folder(), range(4)))
    assert {folder.name for folder in folders} == {
        "2026-01-31_12-00-00", *(f"2026-01-31_12-00-00-{number}" for number in (2, 3, 4))
    }  # fmt: skip
    assert set(folders) == set((tmp_path / "runs").iterdir())


def test_a_named_folder_and_that_of_several_processes_are_shared(run_folder, monkeypatch):
    folder = run_folder()
    assert run_folder("hydra.run.dir=there") == folder
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run_folder() == folder


def test_a_resumed_run_is_in_its_folder_also_under_slurm(run_folder, tmp_path, monkeypatch):
    assert run_folder(f"resume={tmp_path}/run") == tmp_path / "run"
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert run_folder(f"resume={tmp_path}/run") == tmp_path / "run"


def test_a_place_that_cannot_be_written_is_left_to_hydra(run_folder, tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert run_folder() == tmp_path / "runs" / "2026-01-31_12-00-00"
