"""A sweep of trainings that is killed in the middle, and started again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning import Callback

TINY = (
    "data.num_trainval=12",
    "data.num_test=6",
    "data.picture_size=32",
    "data.image_size=16",
    "model.base_channels=2",
    "compute=exact",
    "augmentation=light",
    "~callbacks.validation_pictures",
)
SIX = ("-m", "seed=0,1,2", "loss=cross_entropy,dice", "hydra.sweep.dir=sweep")


class KillInThird(Callback):
    """Kills the process in the second epoch of the third training that gets there, once."""

    def __init__(self, folder: str) -> None:
        self.begun = Path(folder, "begun")

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            with self.begun.open("a") as file:
                file.write("x")
            if self.begun.stat().st_size == 3:
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def petseg(small_overrides, tmp_path):
    kill = ("+callbacks.kill._target_=test_sweeps.KillInThird", f"+callbacks.kill.folder={tmp_path}")

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "petseg_lightning.train", *small_overrides, *TINY, *kill, *overrides],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_a_killed_sweep_runs_only_what_is_missing_and_ends_like_an_undisturbed_one(petseg, train_small, tmp_path):
    assert petseg(*SIX).returncode == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "sweep").glob("*/metrics.json")}
    assert len(before) == 2
    done = petseg(*SIX)
    assert done.returncode == 0, done.stderr
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert done.stdout.count("finished before, not run again") == 2
    assert done.stdout.count("job 2 (seed=1 loss=cross_entropy): resumed in ") == 1
    assert done.stdout.count("resumed in ") == 1
    rows = [line for line in done.stdout.splitlines() if line.startswith("│") and "seed=" in line]
    assert len(rows) == 6
    assert all("│ finished │" in row for row in rows)
    assert (tmp_path / "begun").stat().st_size == 2 + 2 + 3  # the killed one began its second epoch twice

    first = train_small(tmp_path / "undisturbed", *TINY, "seed=1", "loss=cross_entropy")
    (resumed,) = (tmp_path / "sweep").glob("loss-cross_entropy,seed-1_*/metrics.json")
    second = json.loads(resumed.read_text())
    assert first["splits"] == second["splits"]
    assert first["best_epoch"] == second["best_epoch"]
