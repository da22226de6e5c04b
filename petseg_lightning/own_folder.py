"""A run folder of its own for each run, or that of the run that is resumed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")  # set in each of several processes of one run: they share its folder


class OwnFolder(Callback):
    """Makes the folder of a run, under the next free name where a run that started in the same second has it.

    A folder that the command names stays as it is: a run may go on in the folder of another.
    """

    folder: Path | None = None  # of the run that starts in this process, and not of one that is resumed

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        named = any(override.startswith("hydra.run.dir=") for override in config.hydra.overrides.hydra)
        if config.get("resume") is not None and not named:
            config.hydra.run.dir = str(Path(config.resume).absolute())
            config.hydra.output_subdir = None  # the settings there stay until the new ones have been compared with them
            return
        if any(rank in os.environ for rank in RANKS):
            return
        if named:
            OwnFolder.folder = Path(config.hydra.run.dir)
            return
        folder = Path(config.hydra.run.dir)
        with suppress(OSError):  # Hydra meets it too, and there it is told
            folder.parent.mkdir(parents=True, exist_ok=True)
            OwnFolder.folder = _made(folder)
            config.hydra.run.dir = str(OwnFolder.folder)


def _made(folder: Path) -> Path:
    free, number = folder, 1
    while True:
        with suppress(FileExistsError):
            free.mkdir()
            return free
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
