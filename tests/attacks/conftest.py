"""Hostile files made from one whole run, and the commands that read them."""

import copy
import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from petseg_lightning.data.synthetic import write_synthetic_pets
from petseg_lightning.segmenter import CHECKPOINT_KEY
from petseg_lightning.train import main as train_door

SECRET = "tr3asure-of-the-environment"
SETTINGS = (
    "data=oxford_pet",
    "data.image_size=32",
    "data.num_workers=0",
    "data.cache=memory",
    "data.val_fraction=0.3",
    "model.base_channels=2",
    "model.depth=1",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "~callbacks.progress_bar",
    "~callbacks.model_summary",
)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A folder with `pets`, small and drawn, and `run`, a training on them."""
    folder = tmp_path_factory.mktemp("whole")
    write_synthetic_pets(folder / "pets", num_trainval=28, num_test=7, picture_size=32, seed=0)
    level, handlers = logging.root.level, list(logging.root.handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HYDRA_FULL_ERROR", "1")  # else the door leaves it set
        patch.setattr(sys, "argv", ["train", *SETTINGS, f"data.root={folder / 'pets'}", "hydra.run.dir=run"])
        train_door()
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    return folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of the run, to be spoilt, beside which nothing lies but a folder to work in."""
    shutil.copytree(whole / "run", tmp_path / "theirs" / "run")
    return tmp_path / "theirs" / "run"


@pytest.fixture
def checkpoint(run) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """(change of the contents) -> the run's best checkpoint with the change."""

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        path = run / "checkpoints" / "best.ckpt"
        contents = copy.deepcopy(torch.load(path, weights_only=True))
        changed = change(contents)
        torch.save(contents if changed is None else changed, path)
        return path

    return write


@pytest.fixture
def description(checkpoint) -> Callable[..., Path]:
    """(dotted key, value) pairs -> the run's best checkpoint whose description has these values."""

    def write(*pairs: tuple[str, Any]) -> Path:
        def change(contents: dict[str, Any]) -> None:
            for key, value in pairs:
                *parents, leaf = key.split(".")
                node = contents[CHECKPOINT_KEY]
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[leaf] = value

        return checkpoint(change)

    return write


@pytest.fixture
def command(whole, tmp_path, monkeypatch, capfd) -> Iterator[Callable[..., tuple[int, str]]]:
    """(door, overrides) -> exit code and stderr; what it must not do is checked: see `_require_harmless`."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PETSEG_SECRET", SECRET)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # else a door leaves it set
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PETSEG_TRACEBACK", raising=False)
    before = {path: _state(path) for path in (whole / "pets",)}

    def call(door: str, *overrides: str) -> tuple[int, str]:
        theirs = _state(tmp_path / "theirs")
        monkeypatch.setattr(sys, "argv", [door, *overrides])
        module = "report.__main__" if door == "report" else door
        code = 0
        try:
            importlib.import_module(f"petseg_lightning.{module}").main()
        except SystemExit as end:
            code = int(end.code or 0)
        output = capfd.readouterr()
        assert SECRET not in output.out + output.err
        for folder in (work, tmp_path / "theirs", tmp_path / "cache"):
            for path in folder.rglob("*"):
                assert SECRET not in path.name
                small = path.is_file() and path.stat().st_size < 2**26
                assert not small or SECRET.encode() not in path.read_bytes(), path
        assert not list(tmp_path.rglob("executed*")), "code of the file ran"
        written = {path for path, content in _state(tmp_path / "theirs").items() if theirs.get(path) != content}
        assert written <= {tmp_path / "theirs/run/report.html"}, "something was written where the file said"
        assert {path: _state(path) for path in before} == before
        assert {path.name for path in tmp_path.iterdir()} <= {"theirs", "work", "cache"}
        return code, output.err

    level, handlers = logging.root.level, list(logging.root.handlers)
    yield call
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.fixture
def refused(command) -> Callable[..., str]:
    """(door, overrides) -> the one line with which the command ends."""

    def call(door: str, *overrides: str) -> str:
        code, errors = command(door, *overrides)
        assert code == 1, errors
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        return line

    return call


def _state(folder: Path) -> dict[Path, Any]:
    return {
        path: path.readlink() if path.is_symlink() else path.stat().st_size if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.endswith(".lock")
    }
