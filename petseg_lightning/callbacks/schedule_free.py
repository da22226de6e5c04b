"""What a schedule-free optimizer needs of a training."""

from typing import Any

from lightning import LightningModule, Trainer

from petseg_lightning.callbacks.recent_pictures import RecentPictures
from petseg_lightning.module import SegmentationModule


class ScheduleFree(RecentPictures):
    """Trains on the weights of an optimizer's `train()`, and evaluates and stores those of its `eval()`.

    Defazio et al., "The Road Less Scheduled", 2024: the second are averages, whose normalization statistics are
    measured on the last batches of an epoch. Of other optimizers nothing happens.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        for optimizer in _schedule_free(trainer):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            optimizer.train()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if trainer.is_last_batch:  # validations and checkpoints come next
            self._evaluate(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(trainer, pl_module)  # in the middle of an epoch, too

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        for optimizer in _schedule_free(trainer):
            if optimizer.param_groups[0]["train_mode"]:
                optimizer.eval()
                self.measure_statistics(trainer, pl_module)


def _schedule_free(trainer: Trainer) -> list[Any]:
    return [optimizer for optimizer in trainer.optimizers if hasattr(optimizer, "eval")]
