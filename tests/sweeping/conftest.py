import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DOOR = """
import json, os, signal
from pathlib import Path
from petseg_lightning.config import door, given
from petseg_lightning.errors import InputError, PrunedError

def run(cfg):
    with open("runs.txt", "a") as file:
        print(json.dumps([os.getpid(), cfg.seed, cfg.optimizer.lr, cfg.ckpt_path, given()]), file=file)
    if Path("kill").exists() and cfg.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.seed == 13:
        raise InputError("13 brings bad luck")
    if cfg.seed == 14:
        raise PrunedError("14 promises little")
    scores = {"protocols": {"trimap": {"miou": 1 - abs(cfg.optimizer.lr - 0.25)}}}
    metrics = {"headline": "trimap", "splits": {"val": scores, "test": scores}}
    Path(cfg.paths.output_dir, "metrics.json").write_text(json.dumps(metrics))

def fingerprint(cfg):
    return Path("data.txt").read_text()

if __name__ == "__main__":
    Path("main.txt").write_text(str(os.getpid()))
    door("train", run, fingerprint)()
"""


class Door:
    """A small door of the name train, in processes of its own; what it trained on is in data.txt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "some_script.py").write_text(DOOR)
        (folder / "data.txt").write_text("data a")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "runs.txt").write_text("")
        return subprocess.run(
            [sys.executable, "some_script.py", *arguments],
            cwd=self.folder, env={**os.environ, "COLUMNS": "200", "RAY_AUTH_MODE": "disabled"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    @property
    def runs(self) -> list[list]:
        """Of the last command: process, seed, learning rate, checkpoint, what was given."""
        return [json.loads(line) for line in (self.folder / "runs.txt").read_text().splitlines()]

    @property
    def seeds(self) -> list[int]:
        return [seed for _, seed, *_ in self.runs]

    def states(self, sweep: str) -> dict[str, str]:
        files = sorted((self.folder / sweep).glob("*/state.json"))
        return {file.parent.name.rpartition("_")[0]: json.loads(file.read_text())["status"] for file in files}


@pytest.fixture
def train(tmp_path) -> Door:
    return Door(tmp_path)
