"""A run folder of its own for each run, or that of the run that is resumed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from petseg_lightning.files import write_text

RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")  # set in each of several processes of one run: they share its folder


class OwnFolder(Callback):
    """Makes the folder of a run, under the next free name where a run that started in the same second has it.

    A folder that the command names stays as it is: a run may go on in the folder of another.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        named = any(override.startswith("hydra.run.dir=") for override in config.hydra.overrides.hydra)
        if named or any(rank in os.environ for rank in RANKS):
            return
        if config.get("resume") is not None:
            _go_on_in(Path(config.resume).absolute(), config)
            return
        folder = Path(config.hydra.run.dir)
        with suppress(OSError):  # Hydra meets it too, and there it is told
            folder.parent.mkdir(parents=True, exist_ok=True)
            config.hydra.run.dir = str(_made(folder))


def _go_on_in(folder: Path, config: DictConfig) -> None:
    """Use a run folder again; its settings are replaced whole or not at all, which Hydra does not do."""
    config.hydra.run.dir, subfolder = str(folder), config.hydra.output_subdir
    config.hydra.output_subdir = None
    task = {key: value for key, value in config.items_ex(resolve=False) if key != "hydra"}
    texts = {"config": OmegaConf.create(task), "overrides": config.hydra.overrides.task}
    for name, content in texts.items():
        write_text(folder / subfolder / f"{name}.yaml", OmegaConf.to_yaml(content))


def _made(folder: Path) -> Path:
    free, number = folder, 1
    while True:
        with suppress(FileExistsError):
            free.mkdir()
            return free
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
