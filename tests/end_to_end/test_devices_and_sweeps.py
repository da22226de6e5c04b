"""Several devices and several jobs, from the command line."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml


@pytest.fixture
def petseg(small_overrides, tmp_path):
    def run(*overrides: str) -> subprocess.CompletedProcess:
        settings = [setting for setting in small_overrides if not setting.startswith(("trainer=", "~"))]
        return subprocess.run(
            [sys.executable, "-m", "petseg_lightning.train", *settings, *overrides],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_training_on_two_devices(petseg, tmp_path):
    done = petseg("trainer=ddp_cpu", "hydra.run.dir=run", "data.batch_size=3")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["splits"]["test"]["num_images"] == 11
    assert sum(map(sum, metrics["splits"]["train"]["protocols"]["trimap"]["confusion_matrix"])) == 34 * 32 * 32
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2 * 6  # 34 images, 17 for each device, in batches of 3
    assert (tmp_path / "run/report.html").is_file()


def test_a_sweep_goes_on_after_a_job_that_fails(petseg, tmp_path):
    done = petseg("-m", "trainer=cpu", "data.root=missing,drawn", "data=oxford_pet,synthetic", "data.download=false")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    assert "Traceback" not in done.stderr


def test_a_sweep_leaves_finished_runs(petseg, tmp_path):
    done = petseg("-m", "trainer=cpu", "model.base_channels=3,4", "optimizer.lr=1e-3", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    for channels in (3, 4):
        (job,) = (tmp_path / "sweep").glob(f"model.base_channels-{channels}_*")
        metrics = json.loads((job / "metrics.json").read_text())
        checkpoint = torch.load(job / "checkpoints/best.ckpt", weights_only=True)
        assert checkpoint["petseg_lightning"]["model"]["base_channels"] == channels
        assert 0 < metrics["splits"]["test"]["protocols"]["trimap"]["miou"] < 1
        assert (job / "report.html").is_file()
        hyperparameters = yaml.safe_load((job / "csv/hparams.yaml").read_text())
        assert hyperparameters["model.base_channels"] == channels
        assert "data" not in hyperparameters  # the same in both jobs
