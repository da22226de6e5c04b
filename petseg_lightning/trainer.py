"""Lightning's Trainer, whose checkpoints survive whatever happens while they are written."""

import os
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.plugins.io import TorchCheckpointIO

from petseg_lightning.inference.checkpoint import read_checkpoint, write_checkpoint

LAST, PREVIOUS = "last.ckpt", "last-previous.ckpt"


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that are written beside their place, flushed, and then put into it; the last one before is kept."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        place = Path(path)
        write_checkpoint(place, checkpoint, place.with_name(PREVIOUS) if place.name == LAST else None)

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path))


class Trainer(lightning.Trainer):
    """A `lightning.Trainer` that writes its checkpoints safely.

    Args:
        checkpoint_minutes: between two checkpoints within an epoch, see `callbacks.last_checkpoint`.
        arguments: of `lightning.Trainer`.
    """

    def __init__(self, *, checkpoint_minutes: float = 10.0, **arguments: Any) -> None:
        super().__init__(**{**arguments, "plugins": [CheckpointFiles(), *(arguments.get("plugins") or ())]})
        self.checkpoint_minutes = checkpoint_minutes
