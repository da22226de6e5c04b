"""The checkpoint from which a training goes on, wherever it was ended."""

import signal
from pathlib import Path
from time import monotonic
from typing import Any

from lightning import LightningModule
from lightning import Trainer as LightningTrainer
from lightning.pytorch.callbacks import Checkpoint

from petseg_lightning.errors import StoppedError
from petseg_lightning.interruption import request, take_over
from petseg_lightning.trainer import LAST


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt` at the beginning, at the end of every epoch, every few minutes within one, and after a signal.

    A training that goes on from it takes the same steps as one that was not ended. Within an epoch it is saved only
    behind an optimizer step, and not behind the last one, which the validation follows.

    Args:
        dirpath: the folder of the checkpoint.
        minutes: between two checkpoints within an epoch.
    """

    def __init__(self, dirpath: str, minutes: float = 10.0) -> None:
        self.path, self.minutes = Path(dirpath) / LAST, minutes
        self.ended = 0  # the number of epochs that a training which has ended was to have
        self._between_epochs = False

    def state_dict(self) -> dict[str, Any]:
        return {"ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.ended = state_dict["ended"]

    def on_fit_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        assert trainer.max_epochs is not None
        trainer.should_stop = self.ended >= trainer.max_epochs  # it may have ended early, and would train on
        request.waits = True

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        take_over()
        self._began, self._saved = trainer.current_epoch, monotonic()
        if trainer.global_step == 0:
            self._save(trainer)

    def on_test_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        take_over()

    def on_train_epoch_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """The end of the epoch before: at its own end not all schedulers have been told of it."""
        if trainer.current_epoch > self._began:
            self._between_epochs = True
            self._save(trainer)
            self._between_epochs = False
            self._stop_if_asked(trainer)

    def on_train_batch_start(
        self,
        trainer: LightningTrainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """From here on a resumed epoch is like others: else Lightning leaves a plateau's scheduler out at its end."""
        trainer.fit_loop.restarting = False

    def on_train_batch_end(
        self,
        trainer: LightningTrainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = request.signum is not None or monotonic() - self._saved > 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        assert trainer.max_epochs is not None
        self.ended = trainer.max_epochs
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_fit_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        request.waits = False

    def on_save_checkpoint(
        self,
        trainer: LightningTrainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        if self._between_epochs:  # the next epoch has not begun
            for progress in ("total", "current"):
                checkpoint["loops"]["fit_loop"]["epoch_progress"][progress]["ready"] -= 1

    def _save(self, trainer: LightningTrainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(self.path)
            self._saved = monotonic()

    def _stop_if_asked(self, trainer: LightningTrainer) -> None:
        if trainer.strategy.reduce_boolean_decision(request.signum is not None, all=False):
            raise StoppedError(request.signum or signal.SIGTERM)
