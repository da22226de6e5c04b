"""Run folders of imagined trainings: the numbers are counted with NumPy from masks that the test chooses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

CLASSES = ["pet", "background", "border"]
CONFIG = {
    "seed": 0,
    "ckpt_path": None,
    "paths": {"data_dir": "data", "log_dir": "logs", "output_dir": "${hydra:runtime.output_dir}"},
    "data": {"root": "${paths.data_dir}", "image_size": 16, "cache": "disk"}
    | {"num_folds": None, "fold": 0, "train_fraction": 1.0},
    "augmentation": {"transforms": []},
    "model": {"base_channels": 8},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
    "compute": {"precision": "auto"},
    "trainer": {"precision": "${compute.precision}", "max_epochs": 4, "log_every_n_steps": 10},
    "callbacks": {"best_checkpoint": {"monitor": "val/miou", "dirpath": "${paths.output_dir}/checkpoints"}},
}


def count_of(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(H,W) twice, or (N,H,W) twice -> (3,3), row = truth."""
    return np.array([[int(np.sum((truth == t) & (prediction == p))) for p in range(3)] for t in range(3)])


def ious(matrix: np.ndarray) -> list[float | None]:
    unions = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return [float(hit / union) if union else None for hit, union in zip(matrix.diagonal(), unions, strict=True)]


def miou_of(matrix: np.ndarray) -> float:
    return float(np.mean([value for value in ious(matrix) if value is not None]))


def headline(truths: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    matrix = count_of(truths, predictions)
    return {
        "class_names": CLASSES,
        "accuracy": float(matrix.trace() / matrix.sum()),
        "miou": miou_of(matrix),
        "iou": dict(zip(CLASSES, ious(matrix), strict=True)),
        "lowest_image_miou": min(miou_of(count_of(*pair)) for pair in zip(truths, predictions, strict=True)),
    }


def per_image(truths: np.ndarray, predictions: np.ndarray, with_counts: bool) -> pd.DataFrame:
    rows = []
    for i, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        matrix = count_of(truth, prediction)
        row: dict[str, Any] = {"name": f"beagle_{i}", "breed": "beagle", "species": "dog", "miou": miou_of(matrix)}
        row |= {"accuracy": matrix.trace() / matrix.sum(), "pixels": matrix.sum(), "correct": matrix.trace()}
        row |= {f"fraction_{name}": np.mean(truth == k) for k, name in enumerate(CLASSES)}
        row["edge_contrast"] = 0.3 + i / 100
        if with_counts:
            for k, name in enumerate(CLASSES):
                row[f"intersection_{name}"] = matrix[k, k]
                row[f"union_{name}"] = matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def truths() -> np.ndarray:
    """Masks (40,16,16) of the three classes, in unequal shares."""
    return np.random.default_rng(7).choice(3, (40, 16, 16), p=[0.5, 0.4, 0.1])


def flip(truths: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Masks in which about this share of the pixels has the next class."""
    return np.where(np.random.default_rng(seed).random(truths.shape) < share, (truths + 1) % 3, truths)


@pytest.fixture
def write_run(tmp_path, truths):
    """(name, predictions, overrides: key -> value, ...) -> the folder of a finished training."""

    def write(
        name: str,
        predictions: np.ndarray,
        overrides: dict[str, Any] | None = None,
        *,
        with_counts: bool = True,
        train_predictions: np.ndarray | None = None,
        **environment: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        config = json.loads(json.dumps(CONFIG))
        for key, value in (overrides or {}).items():
            *parents, leaf = key.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[leaf] = value
        train = truths if train_predictions is None else train_predictions
        splits = {
            split: {"num_images": len(truths), "protocols": {"trimap": headline(truths, masks)}}
            for split, masks in (("test", predictions), ("train", train))
        }
        metrics = {"door": "train", "class_names": CLASSES, "headline": "trimap", "image_size": 16, "splits": splits}
        data = {"source": "OxfordPetDataModule", "fingerprint": "0123456789abcdef"}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "environment.json").write_text(json.dumps({"data": data, "finished": name, **environment}))
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (folder / ".hydra" / "overrides.yaml").write_text(
            yaml.safe_dump([f"{key}={value}" for key, value in (overrides or {}).items()])
        )
        per_image(truths, predictions, with_counts).to_csv(folder / "per_image.csv", index=False, float_format="%.6g")
        return folder

    return write


@pytest.fixture
def sweep(write_run, truths, tmp_path) -> Path:
    """Two learning rates with three seeds each: 5 and 20 percent of the pixels are wrong."""
    for job, (rate, share) in enumerate([(0.001, 0.05), (0.1, 0.2)]):
        for seed in range(3):
            noise = flip(truths, share + 0.004 * (seed - 1), seed=10 * job + seed)
            write_run(f"{3 * job + seed}", noise, {"optimizer.lr": rate, "seed": seed, "trainer.max_epochs": 4})
    return tmp_path / "runs"


@pytest.fixture
def count():
    return count_of


@pytest.fixture
def miou():
    return miou_of


@pytest.fixture
def flipped():
    return flip
