"""Collects the counts of every tested image, from all devices."""

from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from petseg_lightning.data.dataset import Batch
from petseg_lightning.data.splits import PADDING
from petseg_lightning.metrics.image_measures import boundary_error_share, edge_contrast
from petseg_lightning.module import SegmentationModule


class EvaluationRecorder(Callback):
    """Keeps, per test loader, the index of every image and its counts (parts x classes), at both resolutions.

    After `trainer.test`, `tables[i]` holds those of loader i, each image once and in order, on every device:
    {"index": int64 (N,), "counts": int64 (N,R,C), perhaps "original_counts": int64 (N,R,C)}. That of loader 0 also
    has "edge_contrast" and "boundary_error_share", float64 (N,).
    """

    def __init__(self) -> None:
        self.tables: list[dict[str, np.ndarray]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._batches: list[list[dict[str, Tensor]]] = [[] for _ in trainer.num_test_batches]

    def on_test_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,
    ) -> None:
        columns = {"index": batch["index"], **{key: outputs[key] for key in outputs if key.endswith("counts")}}
        if dataloader_idx == 0:
            assert isinstance(pl_module, SegmentationModule)
            columns |= _measures(pl_module, batch, outputs["predictions"])
        self._batches[dataloader_idx].append({key: value.cpu() for key, value in columns.items()})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.tables = []
        for batches in self._batches:
            mine = {key: torch.cat([batch[key] for batch in batches]).numpy() for key in batches[0]}
            shares: list[Any] = [mine]
            if trainer.world_size > 1:
                shares = [None] * trainer.world_size
                torch.distributed.all_gather_object(shares, mine)
            table = {key: np.concatenate([share[key] for share in shares]) for key in mine}
            kept = table["index"] != PADDING
            order = np.argsort(table["index"][kept], kind="stable")
            self.tables.append({key: column[kept][order] for key, column in table.items()})


def _measures(module: SegmentationModule, batch: Batch, predictions: Tensor) -> dict[str, Tensor]:
    background = [name == "background" for name in module.target.part_names]
    images = batch["image"].permute(0, 2, 3, 1).cpu().numpy()
    parts = batch["parts"].cpu().numpy()
    truths = module.class_of_part[batch["parts"].int()].cpu().numpy()
    foregrounds = ~np.pad(background, (0, 256 - len(background)), constant_values=True)[parts]
    pairs = zip(truths, predictions.cpu().numpy(), strict=True)
    return {
        "edge_contrast": torch.tensor([edge_contrast(*pair) for pair in zip(images, foregrounds, strict=True)]),
        "boundary_error_share": torch.tensor([boundary_error_share(*pair) for pair in pairs]),
    }
