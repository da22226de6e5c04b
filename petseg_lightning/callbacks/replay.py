"""What a training did behind its checkpoints, so that it can be shown later that the same comes out again."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from petseg_lightning.files import write_json

FILE = Path("checkpoints", "replay.json")
_FEWEST = 5  # steps, unless the epoch ends before
_KEPT = 4  # checkpoints, by step: the last one, the one before, the best, and one that is being written


class Replay(Callback):
    """Notes the losses of the steps behind each checkpoint, up to one that logs, and the weights that they made.

    They stand in `checkpoints/replay.json` by the checkpoint's step: {"<step>": {"losses": [...], "weights": sha256}}.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._step: int | None = None  # of the checkpoint
        self._losses: list[Tensor] = []
        self._notes: dict[str, Any] = {}

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],  # noqa: ARG002
    ) -> None:
        self._step, self._losses = trainer.global_step, []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if self._step is None:
            return
        self._losses.append(outputs["loss"].detach())
        logs = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if trainer.is_last_batch or (logs and len(self._losses) >= _FEWEST):
            self._notes[str(self._step)] = note(self._losses, pl_module)
            self._notes = dict(list(self._notes.items())[-_KEPT:])
            self._step = None
            if trainer.is_global_zero:
                write_json(self.file, self._notes)


def note(losses: list[Tensor], module: nn.Module) -> dict[str, Any]:
    """Losses of steps, and a digest of the weights behind them, as plain values."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"losses": [float(loss) for loss in losses], "weights": digest.hexdigest()}
