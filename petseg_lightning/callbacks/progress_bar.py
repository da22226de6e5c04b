"""The progress bar, which does not make the device wait."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Rich's progress bar, with the training loss of every `log_every_n_steps` and of the last step of an epoch.

    What is logged with `prog_bar=True` is read at every step instead, each time waiting for the device.
    """

    _loss: dict[str, float] = {}  # noqa: RUF012  # replaced, never changed

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and (trainer.is_last_batch or trainer.global_step % trainer.log_every_n_steps == 0):  # type: ignore[attr-defined]
            self._loss = {"train/loss": loss.item()}
        return {**super().get_metrics(trainer, pl_module), **self._loss}

    def _get_train_description(self, current_epoch: int) -> str:
        """As Lightning's, whose first epoch is 0 of one less than there are."""
        last = f"/{self.trainer.max_epochs}" if self.trainer.max_epochs else ""
        return f"Epoch {current_epoch + 1}{last}".ljust(len(self.validation_description))
