"""Collects the counts of every tested image, from all devices."""

import os
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from petseg_lightning.data.splits import PADDING
from petseg_lightning.data.targets import IGNORE, Target
from petseg_lightning.metrics.boundary import boundary_counts
from petseg_lightning.metrics.calibration import calibration_counts, expected_miou
from petseg_lightning.metrics.image_measures import boundary_error_share, edge_contrast
from petseg_lightning.module import SegmentationModule

_WAITING = 16  # batches that may wait to be measured, and are in memory


class EvaluationRecorder(Callback):
    """Keeps, per test loader, the index of every image and its counts (parts x classes), at both resolutions.

    After `trainer.test`, `tables[i]` holds those of loader i, each image once and in order, on every device:
    {"index": int64 (N,), "counts": int64 (N,R,C), perhaps "original_counts": int64 (N,R,C)}. With `measure` that of
    loader 0 also has, measured in threads beside the device and in the model's classes, "edge_contrast" and
    "boundary_error_share", float64 (N,), "boundary_counts", int64 (N,K,6), "calibration_counts", float64 (N,2,15,3),
    before and after the model's temperature, and with it "confidence", float32 (N,), the expected mean IoU. Those of
    the loaders in `confident` have the "confidence" alone.
    """

    def __init__(self, *, measure: bool = True) -> None:
        self.measure = measure
        self.confident: Collection[int] = ()
        self.tables: list[dict[str, np.ndarray]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._batches: list[list[dict[str, Tensor]]] = [[] for _ in trainer.num_test_batches]
        self._measures: list[Future[dict[str, Tensor]]] = []
        self._threads = ThreadPoolExecutor(os.cpu_count())

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
        self._batches[dataloader_idx].append(columns)  # they stay on the device: no waiting for it
        assert isinstance(pl_module, SegmentationModule)
        temperature = pl_module.description.get("temperature", 1.0)
        if dataloader_idx in self.confident:
            columns["confidence"] = expected_miou(outputs["logits"].float().div(temperature).softmax(dim=1))
        if dataloader_idx == 0 and self.measure:
            arrays = (tensor.cpu().numpy() for tensor in (batch["image"], batch["parts"], outputs["predictions"]))
            work = (_measured, pl_module.target, *arrays, outputs["logits"].float().cpu(), temperature)
            self._measures.append(self._threads.submit(*work))
            if len(self._measures) > _WAITING:
                self._measures[-1 - _WAITING].result()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        for columns, measures in zip(self._batches[0], self._measures, strict=False):
            columns |= measures.result()
        self._threads.shutdown()
        self.tables = []
        for batches in self._batches:
            mine = {key: torch.cat([batch[key] for batch in batches]).cpu().numpy() for key in batches[0]}
            shares: list[Any] = [mine]
            if trainer.world_size > 1:
                shares = [None] * trainer.world_size
                torch.distributed.all_gather_object(shares, mine)
            table = {key: np.concatenate([share[key] for share in shares]) for key in mine}
            kept = table["index"] != PADDING
            order = np.argsort(table["index"][kept], kind="stable")
            self.tables.append({key: column[kept][order] for key, column in table.items()})


def _measured(
    target: Target, images: np.ndarray, parts: np.ndarray, predictions: np.ndarray, logits: Tensor, temperature: float
) -> dict[str, Tensor]:
    """Of a batch: images uint8 (B,3,H,W), parts and predictions integer (B,H,W), logits float32 (B,K,H,W)."""
    background = [name == "background" for name in target.part_names]
    foregrounds = ~np.pad(background, (0, 256 - len(background)), constant_values=True)[parts]
    classes = np.pad(target.part_to_class, (0, 256 - len(background)), constant_values=IGNORE)[parts]
    contrasts = map(edge_contrast, images.transpose(0, 2, 3, 1), foregrounds)
    shares = map(boundary_error_share, classes, predictions)
    num_classes = len(target.class_names)
    boundaries = [boundary_counts(*pair, num_classes) for pair in zip(classes, predictions, strict=True)]
    before, after = (logits.div(divisor).softmax(dim=1) for divisor in (1.0, temperature))
    calibration = [calibration_counts(one, torch.from_numpy(classes)) for one in (before, after)]
    return {
        "edge_contrast": torch.tensor([*contrasts]),
        "boundary_error_share": torch.tensor([*shares]),
        "boundary_counts": torch.from_numpy(np.stack(boundaries)),
        "calibration_counts": torch.stack(calibration, dim=1),
        "confidence": expected_miou(after),
    }
