"""Run folders whose every number is counted from arrays with NumPy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

CLASSES = ["pet", "background", "border"]
COLOURS = {"pet": "#e69f00", "background": "#5f6b76", "border": "#56b4e9"}
METADATA = {
    "door": "train",
    "class_names": CLASSES,
    "target": "trimap",
    "target_label": "trimap: pet / background / border",
    "headline": "trimap",
    "best_epoch": 17,
    "epochs": 24,
    "parameters": 3254703,
    "train_seconds": 512.3,
    "images_per_second": 61.2,
    "colors": COLOURS,
}
BOUNDARY = {
    "tolerance": 0.008,
    "tolerance_pixels": 2,
    "band": 0.02,
    "band_pixels": 4,
    "f_score": {"pet": 0.712, "background": 0.845, "border": 0.393},
    "precision": {"pet": 0.741, "background": 0.883, "border": 0.502},
    "recall": {"pet": 0.685, "background": 0.811, "border": 0.323},
    "iou": {"pet": 0.437, "background": 0.615, "border": 0.271},
    "mean_f_score": 0.65,
    "mean_iou": 0.441,
    "mean_image_f_score": 0.631,
    "mean_image_iou": 0.429,
}
BINS = {
    "pixels": [0] * 12 + [300, 500, 1200],
    "probability": [None] * 12 + [0.83, 0.9, 0.98],
    "accuracy": [None] * 12 + [0.7, 0.81, 0.95],
}
CALIBRATION = {
    "temperature": 1.284,
    "before": {"expected_calibration_error": 0.0561, "bins": BINS},
    "after": {"expected_calibration_error": 0.0123, "bins": BINS | {"accuracy": [None] * 12 + [0.8, 0.9, 0.97]}},
    "review": {
        "bad_miou": 0.5,
        "num_bad": 2,
        "look_at": {"0.5": 0.25, "0.8": 0.75, "0.95": 0.75},
        "spearman": 0.8123,
        "curve": {
            "looked_at": [0.0, 0.25, 0.5, 0.75, 1.0],
            "found": [0.0, 0.5, 0.5, 1.0, 1.0],
            "rest_miou": [0.6, 0.7, 0.75, 0.9, None],
        },
    },
}
ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.14.0"},
    "git": {"commit": "0d7e29e", "dirty": False},
    "data": {"source": "oxford_pet", "counts": {"trainval": 1286, "test": 928}},
    "command": ["petseg", "train", "experiment=paper_trimap"],
    "started": "2026-10-03T09:12:44",
}


def count(truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """(N, H, W) twice -> (K, K), rows are the truth."""
    return np.array([[int(np.sum((truths == t) & (predictions == p))) for p in range(3)] for t in range(3)])


def ratio(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def mean(values: Any) -> float:
    return float(np.mean([value for value in values if value is not None]))


def score(matrix: np.ndarray, names: list[str]) -> dict[str, Any]:
    hit, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    of_class = {
        "iou": [ratio(*pair) for pair in zip(hit, true + predicted - hit, strict=True)],
        "dice": [ratio(*pair) for pair in zip(2 * hit, true + predicted, strict=True)],
        "precision": [ratio(*pair) for pair in zip(hit, predicted, strict=True)],
        "recall": [ratio(*pair) for pair in zip(hit, true, strict=True)],
    }
    return {
        "class_names": names,
        "accuracy": float(hit.sum() / matrix.sum()),
        "miou": mean(of_class["iou"]),
        "mean_dice": mean(of_class["dice"]),
        "pet_iou": dict(zip(names, of_class["iou"], strict=True)).get("pet"),
        "confusion_matrix": matrix.tolist(),
        **{key: dict(zip(names, values, strict=True)) for key, values in of_class.items()},
    }


def score_split(truths: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    def protocol(lookup: list[int], names: list[str]) -> dict[str, Any]:
        def merged(matrix: np.ndarray) -> np.ndarray:
            return np.array(
                [
                    [sum(matrix[a, b] for a in range(3) for b in range(3) if (lookup[a], lookup[b]) == (i, j))
                     for j in range(len(names))] for i in range(len(names))
                ]
            )  # fmt: skip

        pairs = zip(truths, predictions, strict=True)
        single = [score(merged(count(truth, prediction)), names) for truth, prediction in pairs]
        return score(merged(count(truths, predictions)), names) | {
            "resolution": "model",
            "mean_image_miou": mean(one["miou"] for one in single),
            "mean_image_accuracy": mean(one["accuracy"] for one in single),
            "lowest_image_miou": min(one["miou"] for one in single),
        }

    protocols = {
        "trimap": protocol([0, 1, 2], CLASSES),
        "binary_border_pet": protocol([0, 1, 0], ["pet", "background"]),
        "binary_border_background": protocol([0, 1, 1], ["pet", "background"]),
    }
    return {"num_images": len(truths), "protocols": protocols, "original": protocols}


def per_image(names: list[str], truths: np.ndarray, predictions: np.ndarray) -> pd.DataFrame:
    rows = []
    for i, (name, truth, prediction) in enumerate(zip(names, truths, predictions, strict=True)):
        scores, breed = score(count(truth, prediction), CLASSES), name.rsplit("_", 1)[0]
        rows.append(
            {
                "name": name,
                "breed": breed,
                "species": "cat" if breed[:1].isupper() else "dog",
                **{f"iou_{c}": scores["iou"][c] for c in CLASSES},
                "miou": scores["miou"],
                "accuracy": scores["accuracy"],
                **{f"fraction_{c}": float(np.mean(truth == k)) for k, c in enumerate(CLASSES)},
                "pixels": truth.size,
                "correct": int(np.sum(truth == prediction)),
                "edge_contrast": 0.05 + (37 * i % 100) / 110,
                "boundary_error_share": (53 * i % 100) / 120,
                "boundary_f_score": (29 * i % 100) / 100,
                "boundary_iou": (31 * i % 100) / 140,
                "pet_fraction": float(np.mean(truth != 1)),
            }
        )
    return pd.DataFrame(rows)


def curves(epochs: int) -> pd.DataFrame:
    """Sparse, as Lightning's CSVLogger writes them: a row for training, one for validation."""
    t = np.arange(epochs)
    training = pd.DataFrame({"epoch": t, "step": 9 * t, "train/loss": 0.25 + 0.7 * np.exp(-t / 6)})
    validation = pd.DataFrame({"epoch": t, "step": 9 * t, "val/loss": 0.42 + 0.5 * np.exp(-t / 4)})
    ends = {"miou": 0.64, "accuracy": 0.84, "iou_pet": 0.7, "iou_background": 0.83, "iou_border": 0.39}
    for key, end in ends.items():
        validation[f"val/{key}"] = end - 0.4 * np.exp(-t / 5) + 0.01 * np.sin(3 * t)
    return pd.concat([training, validation]).sort_values("epoch", kind="stable")


def overlay(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS.values()])
    return Image.fromarray((np.where(mask[..., None] == 1, image, 0.4 * image + 0.6 * palette[mask])).astype(np.uint8))


def write_pictures(folder: Path, table: pd.DataFrame, images: Any, truths: Any, predictions: Any, grid: int) -> None:
    folder.mkdir()
    worst = table["miou"].nsmallest(grid // 2).index
    listed = []
    for i, role in [*((i, "grid") for i in range(grid)), *((i, "worst") for i in worst)]:
        stem = f"{role}{i}"
        entry = {key: f"{stem}_{key}.png" for key in ("truth", "prediction")} | {"image": f"{stem}_image.jpg"}
        Image.fromarray(images[i]).save(folder / entry["image"])
        overlay(images[i], truths[i]).save(folder / entry["truth"])
        overlay(images[i], predictions[i]).save(folder / entry["prediction"])
        listed.append(entry | {"role": role, **table.loc[i, ["name", "miou", "accuracy"]].to_dict()})
    (folder / "pictures.json").write_text(json.dumps(listed))


def write_run_folder(folder: Path, names: list[str], images: Any, truths: Any, predictions: Any, grid: int) -> Path:
    """What a finished training leaves; train has no error, the last picture stands for validation."""
    splits = {
        "train": score_split(truths[:-1], truths[:-1]),
        "val": score_split(truths[-1:], predictions[-1:]),
        "test": score_split(truths, predictions) | {"boundary": BOUNDARY, "calibration": CALIBRATION},
    }
    table = per_image(names, truths, predictions)
    metrics = METADATA | {
        "image_size": truths.shape[1],
        "num_images": {"train": 1157, "val": 129, "test": len(names)},
        "splits": splits,
    }
    for sub in ("csv", ".hydra"):
        (folder / sub).mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    table.to_csv(folder / "per_image.csv", index=False)
    curves(24).to_csv(folder / "csv" / "metrics.csv", index=False)
    (folder / ".hydra" / "config.yaml").write_text("model:\n  base_channels: 64\nseed: 0\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- experiment=paper_trimap\n- data.image_size=128\n")
    write_pictures(folder / "pictures", table, images, truths, predictions, grid)
    return folder


def discs(radii: list[int], size: int = 48) -> np.ndarray:
    """Class masks (N, size, size): a disc of pet with a border of 3 pixels, on background."""
    y, x = np.mgrid[:size, :size] - size // 2
    distance = np.hypot(y, x)
    return np.stack([np.select([distance < r, distance < r + 3], [0, 2], 1) for r in radii]).astype(np.uint8)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished training on four drawn pictures; the last has no pet and no border, and none predicted."""
    truths, predictions = discs([12, 18, 6, -3]), discs([10, 20, 9, -3])
    predictions[0, :4] = 0
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3)).astype(np.uint8)
    names = ["Abyssinian_1", "beagle_2", "beagle_3", "Bombay_4"]
    return write_run_folder(tmp_path / "run", names, images, truths, predictions, grid=2)


@pytest.fixture
def edit_metrics(run_folder: Path) -> Callable[[Callable[[dict[str, Any]], Any]], None]:
    """Change the run folder's metrics.json by a function that works in place."""

    def edit(change: Callable[[dict[str, Any]], Any]) -> None:
        path = run_folder / "metrics.json"
        metrics = json.loads(path.read_text())
        change(metrics)
        path.write_text(json.dumps(metrics))

    return edit
