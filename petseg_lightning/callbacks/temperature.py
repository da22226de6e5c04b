"""Fits the temperature of a model's probabilities."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from petseg_lightning.metrics.calibration import TEMPERATURES, fit_temperature, temperature_slopes
from petseg_lightning.module import SegmentationModule


class TemperatureScaling(Callback):
    """At the end of every validation, before a checkpoint is written, gives the module's description its temperature.

    So each checkpoint has that of its own weights, which are those that were validated.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._slopes = torch.zeros(len(TEMPERATURES), 2, device=pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        self._slopes += temperature_slopes(outputs["logits"], outputs["masks"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SegmentationModule)
        slopes = trainer.strategy.reduce(self._slopes, reduce_op="sum")
        assert isinstance(slopes, torch.Tensor)
        pl_module.description["temperature"] = fit_temperature(slopes)
