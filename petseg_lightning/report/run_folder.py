"""What a run folder holds, read into memory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from petseg_lightning.errors import InputError

METRICS_KEYS = ("class_names", "headline", "splits")


@dataclass(frozen=True)
class RunFolder:
    """The files of a train or evaluate run; all but `metrics` may be empty."""

    path: Path
    metrics: dict[str, Any]
    per_image: pd.DataFrame
    """One row per scored picture; an absent class is NaN."""
    epochs: pd.DataFrame
    """One row per epoch (the index, from 1 as in the progress bar), one column per logged value."""
    pictures: list[dict[str, Any]]
    environment: dict[str, Any]
    config: str
    overrides: str

    @classmethod
    def read(cls, path: Path) -> "RunFolder":
        """Read a run folder.

        Raises:
            InputError: there is no `metrics.json` of a train or evaluate run.
        """
        return cls(
            path=path,
            metrics=_read_metrics(path / "metrics.json"),
            per_image=_read_table(path / "per_image.csv"),
            epochs=_read_epochs(path / "csv"),
            pictures=_read_json(path / "pictures" / "pictures.json", []),
            environment=_read_json(path / "environment.json", {}),
            config=_read_text(path / ".hydra" / "config.yaml"),
            overrides=_read_text(path / ".hydra" / "overrides.yaml"),
        )

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint, from 1; None where nothing was trained."""
        number = self.metrics.get("best_epoch")
        return None if number is None else number + 1


def _read_metrics(path: Path) -> dict[str, Any]:
    remedy = "give the folder of a finished train or evaluate run"
    if not path.is_file():
        if (path.parent / "checkpoints" / "last.ckpt").is_file():
            remedy = f"its training did not end: go on with ckpt_path={path.parent}, or {remedy}"
        raise InputError(f"{path.parent} is no run folder: {path.name} is missing; {remedy}.")
    try:
        metrics = _read_json(path, {})
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}.") from error
    missing = [key for key in METRICS_KEYS if key not in metrics]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is not of a train or evaluate run; {remedy}.")
    return metrics


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read_json(path: Path, default: Any) -> Any:
    text = _read_text(path)
    return json.loads(text, parse_constant=lambda _: None) if text else default  # NaN is an absent class


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    text_columns = dict.fromkeys(("name", "breed", "species"), str)  # a picture may be called 007 or NA
    return pd.read_csv(path, dtype=text_columns, keep_default_na=False, na_values=[""])


def _read_epochs(folder: Path) -> pd.DataFrame:
    """Lightning's CSVLogger writes a row per logging call; an epoch's value is the mean of what it logged.

    What stands in metrics_<i>.csv is from before the interruptions of a resumed training.
    """
    rows = pd.DataFrame()
    for path in [*sorted(folder.glob("metrics_*.csv")), *folder.glob("metrics.csv")]:
        later = pd.read_csv(path)
        if "epoch" in later:
            rows = pd.concat([rows[rows["epoch"] < later["epoch"].min()], later]) if len(rows) else later
    return rows.groupby("epoch").mean(numeric_only=True).rename(lambda epoch: epoch + 1) if len(rows) else rows
