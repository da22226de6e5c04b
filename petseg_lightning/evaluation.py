"""Scores of a trained model on whole splits, under every protocol, and the files that hold them."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning import Trainer
from torch import Tensor

from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.dataset import SegmentationDataset
from petseg_lightning.data.samples import Sample
from petseg_lightning.data.targets import Protocol, protocols_for
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing, write_json, write_text
from petseg_lightning.metrics.boundary import BAND, TOLERANCE, band_pixels, boundary_scores, tolerance_pixels
from petseg_lightning.metrics.calibration import (
    BAD_MIOU,
    expected_calibration_error,
    review_curve,
    share_to_look_at,
)
from petseg_lightning.metrics.forecast import fit_forecast
from petseg_lightning.metrics.protocols import merge_counts
from petseg_lightning.metrics.scores import scores
from petseg_lightning.module import SegmentationModule
from petseg_lightning.pictures import class_colours, confusion_figure
from petseg_lightning.run_pictures import write_pictures
from petseg_lightning.segmenter import Segmenter

PER_CLASS = ("iou", "dice", "precision", "recall")
FOUND = (0.5, 0.8, 0.95)  # shares of the bad pictures, of which metrics.json says what it takes to find them
_CURVE_POINTS = 101


class Evaluation:
    """The counts of every image of some splits, and what follows from them.

    The first split is the reported one: it is also scored at the original resolution where asked for, and its images
    get a table and pictures.
    """

    def __init__(
        self,
        module: SegmentationModule,
        datamodule: SegmentationDataModule,
        splits: Sequence[str],
        tables: Sequence[dict[str, np.ndarray]],
    ) -> None:
        self.module, self.datamodule = module, datamodule
        self.tables = dict(zip(splits, tables, strict=True))
        self.reported = splits[0]
        self.protocols = protocols_for(module.target.class_names, datamodule.target.part_names)
        self.own = own_protocol(module, datamodule)

    @property
    def samples(self) -> list[Sample]:
        """The evaluated samples of the reported split."""
        return [self.datamodule.splits[self.reported][i] for i in self.tables[self.reported]["index"]]

    def metrics(self) -> dict[str, Any]:
        """Everything that metrics.json says about the scores, as plain values; NaN is None."""
        target = self.module.target
        return {
            "class_names": list(target.class_names),
            "colors": class_colours(target.class_names),
            "target": target.name,
            "target_label": target.label,
            "image_size": self.datamodule.image_size,
            "headline": target.name,
            "reported_split": self.reported,
            "splits": {split: self._split_metrics(table) for split, table in self.tables.items()},
        }

    def _split_metrics(self, table: dict[str, np.ndarray]) -> dict[str, Any]:
        result: dict[str, Any] = {"num_images": len(table["index"])}
        for key, name in (("counts", "protocols"), ("original_counts", "original")):
            if key in table:
                result[name] = {p.target.name: protocol_scores(table[key], p) for p in self.protocols}
        if "boundary_counts" in table:
            names, size = self.module.target.class_names, self.datamodule.image_size
            result["boundary"] = boundary_metrics(table["boundary_counts"], names, size)
        if "calibration_counts" in table:
            mious = scores(_merge(table["counts"], self.own))["miou"]
            temperature = self.module.description.get("temperature", 1.0)
            result["calibration"] = {
                "temperature": temperature,
                **calibration_metrics(table["calibration_counts"]),
                "review": review_metrics(torch.from_numpy(table["confidence"]), mious),
            }
        return result

    def matrix(self) -> np.ndarray:
        """The confusion matrix (K,K) of the reported split in the model's own classes, row = truth."""
        return _merge(self.tables[self.reported]["counts"], self.own).sum(0).numpy()

    def per_image(self) -> pd.DataFrame:
        """A row for each image of the reported split, in the model's own classes."""
        table, names = self.tables[self.reported], self.module.target.class_names
        counts = _merge(table["counts"], self.own)  # (N,K,K)
        image_scores, pixels = scores(counts), counts.sum((-2, -1))
        boundaries = boundary_scores(torch.from_numpy(table["boundary_counts"]))
        true, hits = counts.sum(-1), counts.diagonal(dim1=-2, dim2=-1)
        unions = true + counts.sum(-2) - hits
        samples = self.samples
        columns: dict[str, Any] = {
            "name": [sample.name for sample in samples],
            "breed": [sample.breed for sample in samples],
            "species": [sample.species for sample in samples],
            "miou": image_scores["miou"],
            "accuracy": image_scores["accuracy"],
            "confidence": table["confidence"],
            **{f"iou_{name}": image_scores["iou"][:, i] for i, name in enumerate(names)},
            **{f"fraction_{name}": true[:, i] / pixels for i, name in enumerate(names)},
            "pixels": pixels,
            "correct": hits.sum(-1),
            **{f"intersection_{name}": hits[:, i] for i, name in enumerate(names)},
            **{f"union_{name}": unions[:, i] for i, name in enumerate(names)},
            "edge_contrast": table["edge_contrast"],
            "boundary_error_share": table["boundary_error_share"],
            "boundary_f_score": boundaries["mean_f_score"],
            "boundary_iou": boundaries["mean_iou"],
        }
        if "background" in (parts := self.module.target.part_names):
            part_pixels = torch.from_numpy(table["counts"]).sum(-1)  # (N,R)
            columns["pet_fraction"] = 1 - part_pixels[:, parts.index("background")] / part_pixels.sum(-1)
        if {"cat", "dog"} <= set(names):
            cat, dog = names.index("cat"), names.index("dog")
            confused = counts[:, cat, dog] + counts[:, dog, cat]
            columns["species_confusion"] = confused / (counts[:, cat, cat] + counts[:, dog, dog] + confused)
        return pd.DataFrame({key: np.asarray(column) for key, column in columns.items()})

    def forecast(self, split: str) -> dict[str, Any] | None:
        """What confidences say about mean IoUs, by the pictures of a split that has `confident`; None for too few."""
        table = self.tables[split]
        return fit_forecast(table["confidence"], scores(_merge(table["counts"], self.own))["miou"].numpy())

    def write(self, folder: Path, extra: dict[str, Any]) -> dict[str, Any]:
        """Write metrics.json (with `extra`), per_image.csv, confusion_matrix.csv and .png, and pictures/."""
        names, matrix, per_image = self.module.target.class_names, self.matrix(), self.per_image()
        table = pd.DataFrame(matrix, index=pd.Index(names, name="truth\\prediction"), columns=pd.Index(names))
        write_text(folder / "confusion_matrix.csv", table.to_csv())
        with replacing(folder / "confusion_matrix.png") as path:
            confusion_figure(matrix, names).savefig(path)
        write_text(folder / "per_image.csv", per_image.to_csv(index=False, float_format="%.6g"))
        pictures = SegmentationDataset(self.datamodule.pictures(self.reported))
        self.module.eval()  # after a test, Lightning puts it back into the mode that it had before
        write_pictures(folder / "pictures", self.module, pictures, self.tables[self.reported]["index"], per_image)
        metrics = {**extra, **self.metrics()}
        write_json(folder / "metrics.json", metrics)
        return metrics


def evaluate(
    trainer: Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    splits: Sequence[str],
    *,
    ckpt_path: str | None = None,
    original: bool = False,
    confident: Sequence[str] = (),
    with_original_images: bool = False,
) -> Evaluation:
    """Count a model's pixels over whole splits, on the trainer's devices.

    Args:
        trainer: one with an `EvaluationRecorder` among its callbacks.
        module: the model, or its shape where `ckpt_path` holds the weights.
        datamodule: the data; its classes may be any that the model's can be scored on.
        splits: of train, val and test.
        ckpt_path: a checkpoint, whose weights are loaded first.
        original: count the first split also at the resolution of its pictures.
        confident: splits other than the first whose confidences are wanted.
        with_original_images: give the module the pictures as they are on disk, too.

    Raises:
        InputError: the model's classes are not those of the data.
    """
    own_protocol(module, datamodule)
    recorder = next(c for c in trainer.callbacks if isinstance(c, EvaluationRecorder))  # type: ignore[attr-defined]
    datamodule.trainer = trainer
    recorder.confident = [splits.index(split) for split in confident]
    at_both = {splits[0]} if original else set()
    loaders = [
        datamodule.evaluation_dataloader(
            split, with_original_parts=split in at_both, with_original_images=with_original_images
        )
        for split in splits
    ]
    trainer.test(module, dataloaders=loaders, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    return Evaluation(module, datamodule, splits, recorder.tables)


def own_protocol(module: Segmenter, datamodule: SegmentationDataModule) -> Protocol:
    """The protocol of the model's own classes. Raises InputError where the data cannot be scored in them."""
    for protocol in protocols_for(module.target.class_names, datamodule.target.part_names):
        if protocol.target.name == module.target.name:
            return protocol
    raise InputError(
        f"the checkpoint was trained on masks of {', '.join(module.target.part_names)}, but those of the data hold "
        f"{', '.join(datamodule.target.part_names)}: use the checkpoint with data of its own kind"
    )


def protocol_scores(counts: np.ndarray, protocol: Protocol) -> dict[str, Any]:
    """The scores of images under one protocol, as plain values with None for NaN.

    Args:
        counts: int64 (N,R,C), parts x classes of the model, one table per image.
        protocol: how to merge them.
    """
    names = protocol.target.class_names
    per_image = _merge(counts, protocol)  # (N,K,K)
    matrix = per_image.sum(0)
    whole, single = scores(matrix), scores(per_image)
    pet = [int(name not in ("background", "border")) for name in names]
    has_pet = "background" in names and any(pet)
    return {
        "label": protocol.target.label,
        "class_names": list(names),
        "accuracy": _plain(whole["accuracy"]),
        "miou": _plain(whole["miou"]),
        "mean_dice": _plain(whole["mean_dice"]),
        **{key: {name: _plain(value) for name, value in zip(names, whole[key], strict=True)} for key in PER_CLASS},
        "pet_iou": _plain(scores(merge_counts(matrix, pet, pet, 2))["iou"][1]) if has_pet else None,
        "mean_image_accuracy": _plain(single["accuracy"].nanmean()),
        "mean_image_miou": _plain(single["miou"].nanmean()),
        "lowest_image_miou": _plain(single["miou"].nan_to_num(torch.inf).min()),
        "confusion_matrix": matrix.tolist(),
    }


def boundary_metrics(counts: np.ndarray, class_names: Sequence[str], image_size: int) -> dict[str, Any]:
    """Boundary F-score and Boundary IoU of images, and how near is near, as plain values with None for NaN.

    Args:
        counts: int64 (N,K,6), of `metrics.boundary.boundary_counts`, one table per image.
        class_names: K names.
        image_size: side of the images in pixels.
    """
    per_image = torch.from_numpy(counts)
    whole, single = boundary_scores(per_image.sum(0)), boundary_scores(per_image)
    per_class = {key: whole[key] for key in ("f_score", "precision", "recall", "iou")}
    return {
        "tolerance": TOLERANCE,
        "tolerance_pixels": tolerance_pixels(image_size, image_size),
        "band": BAND,
        "band_pixels": band_pixels(image_size, image_size),
        **{key: {n: _plain(v) for n, v in zip(class_names, values, strict=True)} for key, values in per_class.items()},
        "mean_f_score": _plain(whole["mean_f_score"]),
        "mean_iou": _plain(whole["mean_iou"]),
        "mean_image_f_score": _plain(single["mean_f_score"].nanmean()),
        "mean_image_iou": _plain(single["mean_iou"].nanmean()),
    }


def calibration_metrics(counts: np.ndarray) -> dict[str, Any]:
    """How sure the predictions of pixels are and how often right, before and after the temperature, as plain values.

    Args:
        counts: float64 (N,2,15,3), of `metrics.calibration.calibration_counts`, two tables per image.
    """
    tables = torch.from_numpy(counts).sum(0)  # (2,15,3)
    errors = expected_calibration_error(tables)
    return {
        name: {
            "expected_calibration_error": _rounded(error),
            "bins": {
                "pixels": table[:, 0].long().tolist(),
                "probability": [_rounded(value) for value in table[:, 1] / table[:, 0]],
                "accuracy": [_rounded(value) for value in table[:, 2] / table[:, 0]],
            },
        }
        for name, table, error in zip(("before", "after"), tables, errors, strict=True)
    }


def review_metrics(confidences: Tensor, mious: Tensor) -> dict[str, Any]:
    """What a review finds that looks at pictures, the least sure first, as plain values with None for NaN.

    Args:
        confidences: (N,), of the images.
        mious: (N,), their mean IoU; NaN, where nothing counts, is left out.
    """
    from scipy.stats import spearmanr

    confidences, mious = confidences[~mious.isnan()], mious[~mious.isnan()]
    with warnings.catch_warnings(action="ignore"):  # of values that are all the same, or too few
        correlation = spearmanr(confidences, mious).statistic if len(mious) > 1 else math.nan
    curve = review_curve(confidences, mious)
    points = np.linspace(0, len(mious), min(_CURVE_POINTS, len(mious) + 1)).round().astype(int)
    return {
        "bad_miou": BAD_MIOU,
        "num_bad": int((mious < BAD_MIOU).sum()),
        "look_at": {str(found): _plain(share_to_look_at(curve, found)) for found in FOUND},
        "spearman": _rounded(correlation),
        "curve": {
            name: [_rounded(value) for value in column]
            for name, column in zip(("looked_at", "found", "rest_miou"), curve[points].T, strict=True)
        },
    }


def _merge(counts: np.ndarray, protocol: Protocol) -> Tensor:
    target = protocol.target
    return merge_counts(torch.from_numpy(counts), target.part_to_class, protocol.columns, len(target.class_names))


def _plain(value: Tensor | float) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _rounded(value: Tensor | float) -> float | None:
    """To what does not depend on the order in which probabilities were computed and added."""
    return _plain(round(float(value), 6))
