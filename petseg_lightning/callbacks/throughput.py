"""How fast the training runs."""

import statistics
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Images per second of every training epoch, data included and validation not, over all devices.

    Logged as `train/images_per_second`; `median` is that of the epochs, of all but the first if there are more, and
    `seconds` those of the training with its validations, both also over interruptions.
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self._seconds_before = 0.0
        self._began: float | None = None  # while it trains

    def state_dict(self) -> dict[str, Any]:
        return {"rates": self.rates, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rates, self._seconds_before = state_dict["rates"], state_dict["seconds"]

    @property
    def seconds(self) -> float:
        """Of the training so far."""
        return self._seconds_before + (0 if self._began is None else perf_counter() - self._began)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = perf_counter()
        self.on_train_epoch_start(trainer, pl_module)  # which a training that goes on within an epoch does not call

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._images = 0
        self._start = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._seconds_before, self._began = self.seconds, None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self._images += len(batch["image"])
        if trainer.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self.rates.append(self._images * trainer.world_size / (perf_counter() - self._start))
            pl_module.log("train/images_per_second", self.rates[-1], on_step=False, on_epoch=True, rank_zero_only=True)

    @property
    def median(self) -> float | None:
        return statistics.median(self.rates[1:] or self.rates) if self.rates else None
