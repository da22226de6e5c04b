"""How long a training takes to its first step, the first time and again."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter
from typing import Any

from lightning import Callback
from omegaconf import DictConfig

from petseg_lightning.config import overrides
from petseg_lightning.errors import InputError
from petseg_lightning.training import build_datamodule

IMPORTS = "import os, torch, lightning; os._exit(0)"
FIRST_STEP = "first step"
OWN_KEYS = ("mode=", "rounds=", "seconds=", "paths.", "data.cache_dir=", "hydra")  # of this door, or set anew below


class EndAfterFirstStep(Callback):
    """Ends the process when the first optimizer step is done."""

    def on_train_batch_end(self, *_: Any) -> None:
        print(FIRST_STEP, flush=True)
        os._exit(0)


def measure_startup(cfg: DictConfig) -> dict[str, Any]:
    """Seconds of the bare imports, of the data check, and to the first step: first and later starts.

    A start is a process of its own with the overrides of this one. The first has the data, and nothing from earlier
    runs: no decoded pictures.
    """
    _check_data(cfg)  # which downloads, draws or decodes what is not there yet
    rounds = range(min(cfg.rounds, 3))
    with TemporaryDirectory() as folder:
        first = _start(Path(folder))
        imports, checks, second = [], [], []
        for _ in rounds:
            imports.append(_seconds([sys.executable, "-c", IMPORTS], dict(os.environ)))
            checks.append(_check_data(cfg))
            second.append(_start(Path(folder)))
    return {
        "seconds": {"imports": imports, "data check": checks, "first start": [first], "second start": second},
    }


def _check_data(cfg: DictConfig) -> float:
    begin = perf_counter()
    build_datamodule(cfg).setup("fit")
    return perf_counter() - begin


def _start(folder: Path) -> float:
    own = [text for text in overrides() if not text.lstrip("+~").startswith(OWN_KEYS)]
    command = [
        sys.executable,
        "-m",
        "petseg_lightning.train",
        *own,
        f"paths.log_dir={folder / 'logs'}",
        f"data.cache_dir={folder / 'pictures'}",
        f"+callbacks.end._target_={__name__}.{EndAfterFirstStep.__name__}",
    ]
    return _seconds(command, dict(os.environ))


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:  # workers, which outlive it, would keep pipes open
        begin = perf_counter()
        done = subprocess.run(command, env=environment, stdout=out, stderr=err, check=False)
        seconds = perf_counter() - begin
        out.seek(0)
        err.seek(0)
        said, complaints = out.read(), err.read()
    if done.returncode != 0 or (IMPORTS not in command and FIRST_STEP not in said):
        last = (complaints.strip() or "no message").splitlines()[-1]
        raise InputError(
            f"a training with these settings does not reach its first step ({last}); run petseg train to see why"
        )
    return seconds
