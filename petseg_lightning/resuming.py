"""Going on with a training: from which checkpoint, with which settings, and with its curves."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import DictConfig, OmegaConf

from petseg_lightning.conf_tree import shown
from petseg_lightning.effect import effective_values, is_below
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import read_checkpoint
from petseg_lightning.trainer import LAST, PREVIOUS

log = logging.getLogger(__name__)

SETTINGS = "settings"  # under which a checkpoint has what its training was told
FOUND = {"data.batch_size": int, "optimizer.lr": float}  # what a training can find at its beginning
MAY_CHANGE = ("trainer.max_epochs", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")


def effective_settings(cfg: DictConfig) -> dict[str, Any]:
    """The values of a training's config that its result depends on, resolved, by dotted key."""
    return effective_values(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))


class Settings(Callback):
    """Stores in every checkpoint what its training was told: plain values, by dotted key."""

    def __init__(self, cfg: DictConfig, found: dict[str, Any], fingerprint: str) -> None:
        self.restored = False  # whether the training has begun, with all of a checkpoint in its place
        self.values: dict[str, Any] = {"config": effective_settings(cfg), "found": found, "data": fingerprint}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.restored = True

    def on_save_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        checkpoint[SETTINGS] = self.values


def newest_checkpoint(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, of a run folder or the one given, and its content; None without any.

    Raises:
        InputError: none of those that are there can be read.
    """
    folder = path / "checkpoints"
    candidates = [folder / name for name in (LAST, PREVIOUS, "best.ckpt")] if path.is_dir() else [path]
    error: InputError | None = None
    for candidate in filter(Path.is_file, candidates):
        try:
            content = read_checkpoint(candidate)
            _require_whole(candidate, content)
        except InputError as reason:
            error = error or reason
            continue
        if error is not None:
            log.warning("%s; going on from %s", error, candidate)
        return candidate, content
    if error is not None:
        raise error
    return None


def _require_whole(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises InputError for a checkpoint that holds a model only, or nonsense beside it."""
    settings, callbacks = checkpoint.get(SETTINGS), checkpoint.get("callbacks")
    if not (
        isinstance(settings, dict)
        and isinstance(settings.get("config"), dict)
        and isinstance(settings.get("found"), dict)
        and all(key in FOUND and type(value) is FOUND[key] for key, value in settings["found"].items())
        and isinstance(callbacks, dict)
        and all(isinstance(state, dict) for state in callbacks.values())
        and isinstance(checkpoint.get("global_step"), int)
    ):
        raise InputError(f"{path} does not hold what a training goes on from; give a last.ckpt of petseg train")


def has_ended(checkpoint: dict[str, Any], max_epochs: int) -> bool:
    """Whether a training of so many epochs had come to its end, perhaps an early one, when it wrote this."""
    return any(state.get("ended", 0) >= max_epochs for state in checkpoint["callbacks"].values())


def require_same(path: Path, checkpoint: dict[str, Any], now: Settings) -> None:
    """Refuse to go on with settings or data that are not those of the checkpoint's training.

    Raises:
        InputError: what differs.
    """
    was = checkpoint[SETTINGS]
    changed = setting_differences(was["config"], now.values["config"])
    if was["data"] != now.values["data"]:
        changed.append("data: other pictures, splits or sizes of files")
    if changed:
        raise InputError(
            f"{path} is of another training ({'; '.join(changed)}): give the same settings, as "
            "petseg train resume=<its run folder> does"
        )


def setting_differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two trainings' settings, by dotted key, where it changes the result."""
    return [
        f"{key}: {shown(was.get(key))} there, {shown(now.get(key))} here"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and not is_below(key, MAY_CHANGE)
    ]


class Curves:
    """The rows of a run's csv/metrics.csv from before a step, kept for a logger that begins a new file."""

    def __init__(self, folder: Path, step: int) -> None:
        self.file, self.aside = folder / "csv" / "metrics.csv", folder / "csv" / "metrics-before.csv"
        if self.file.is_file() and not self.aside.is_file():
            self.file.rename(self.aside)
        text = self.aside.read_text(encoding="utf-8") if self.aside.is_file() else ""
        rows = csv.DictReader(text.splitlines())
        self.rows = [row for row in rows if row.get("step") and int(row["step"]) < step]

    def give_to(self, loggers: list[Logger]) -> None:
        """Have the CSV logger begin with them."""
        for logger in loggers:
            if isinstance(logger, CSVLogger):
                for row in self.rows:
                    step, epoch = int(row.pop("step")), row.pop("epoch", "")
                    values = {key: float(value) for key, value in row.items() if value}
                    logger.log_metrics(values | ({"epoch": int(epoch)} if epoch else {}), step)  # type: ignore[arg-type]
                logger.save()
        self.aside.unlink(missing_ok=True)
