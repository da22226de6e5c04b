"""Averages of the weights, which are what is validated, tested, and stored as the model."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from petseg_lightning.callbacks.recent_pictures import RecentPictures
from petseg_lightning.module import SegmentationModule


class _Average(WeightAveraging):
    """Lightning's callback, with the averages in place until the pictures of a validation are drawn.

    Checkpoints hold the averages as `state_dict` and what trains on as `current_model_state`.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing yet: other callbacks show the model when the validation ends."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        if self._average_model is not None:
            self._swap_models(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing yet: the last checkpoint is written, from which a longer training goes on."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._average_model = None  # a later validation is of what the module then holds

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # a test has no averages to load, which Lightning would warn of
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class ExponentialAverage(_Average):
    """The exponential moving average of weights and normalization statistics, over the steps.

    Polyak and Juditsky, 1992. The average begins as the weights after the first step; step n after that has the decay
    min(decay, (1 + n) / (10 + n)), as in TensorFlow, so that a short training does not end near its beginning.

    Args:
        decay: the share that stays, 0 to below 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    @torch.no_grad()
    def _average(self, averages: list[Tensor], current: list[Tensor], number: Tensor | int) -> None:
        if averages[0].is_floating_point():
            decay = min(self.decay, (1 + int(number)) / (10 + int(number)))
            torch._foreach_lerp_(averages, current, 1 - decay)
        else:  # counts and tables of classes, which have no average
            torch._foreach_copy_(averages, current)


class StochasticWeightAverage(RecentPictures, _Average):
    """The mean of the weights at the ends of the last epochs, with statistics measured for it.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018. Before `start`, the
    model is the one that trains. The learning rate stays that of the schedule: one that does not fall to zero leaves
    more to average.

    Args:
        start: part of the epochs after which the averaging begins, 0 to below 1.
        statistics_batches: see `RecentPictures`.
    """

    def __init__(self, start: float = 0.75, statistics_batches: int = 32) -> None:
        RecentPictures.__init__(self, statistics_batches)
        _Average.__init__(self, use_buffers=False)
        self.start = start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        average = self._average_model
        assert average is not None
        assert trainer.max_epochs is not None
        if trainer.current_epoch < int(self.start * trainer.max_epochs):
            average.n_averaged.zero_()  # the next epoch takes its place
        else:
            assert isinstance(average.module, SegmentationModule)
            self.measure_statistics(trainer, average.module)
