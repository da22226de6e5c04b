"""What a run folder holds, read into memory."""

import math
import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import brief, parse_yaml, read_bytes, read_json, read_text
from petseg_lightning.report import metrics_file
from petseg_lightning.report.metrics_file import COUNT, SCORE, TEXT

_LARGEST = 2**24  # bytes of metrics.json
_LARGEST_TABLE = 2**26  # bytes of a table
_MOST_ROWS, _MOST_COLUMNS = 2**18, 2**11
_MOST_PICTURES = 100
_TEXT_COLUMNS = ("name", "breed", "species")
_DRAWN = 1e30  # values of curves beyond it are left out
_REMEDY = "give the folder of a finished train or evaluate run"
_PICTURE = re.compile(r"\w[\w\-]{0,100}\.(jpg|png|webp)", re.ASCII)


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
        """Read a run folder, which may be somebody else's: no file of it is followed out of it.

        Raises:
            InputError: there is no `metrics.json` of a train or evaluate run, or a damaged file.
        """
        return cls(
            path=path,
            metrics=read_metrics(path),
            per_image=_read_table(path / "per_image.csv", path),
            epochs=_read_epochs(path / "csv", path),
            pictures=_read_pictures(path),
            environment=read_environment(path),
            config=_text(path, "config.yaml"),
            overrides=_text(path, "overrides.yaml"),
        )

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint, from 1; None where nothing was trained."""
        number = self.metrics.get("best_epoch")
        return None if number is None else number + 1


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of a run folder's metrics.json. Raises InputError where there is none, or a damaged one."""
    path = folder / "metrics.json"
    if not path.is_file():
        remedy = _REMEDY
        if (folder / "checkpoints" / "last.ckpt").is_file():
            remedy = f"its training did not end: petseg train resume={folder} goes on, or {remedy}"
        raise InputError(f"{folder} is no run folder: {path.name} is missing; {remedy}.")
    metrics = _without_nan(read_json(path, _LARGEST, folder))
    if not isinstance(metrics, dict):
        raise InputError(f"{path} holds no scores: it is not of a train or evaluate run; {_REMEDY}.")
    missing = [key for key in metrics_file.NEEDED if key not in metrics]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: it is not of a train or evaluate run; {_REMEDY}.")
    if problem := next(metrics_file.problems(metrics), None):
        raise InputError(f"{path} is damaged ({problem}); {_REMEDY}.")
    return metrics


def read_environment(folder: Path) -> dict[str, Any]:
    """The content of a run folder's environment.json; nothing without one. Raises InputError for a damaged one."""
    path = folder / "environment.json"
    environment = read_json(path, inside=folder) if path.exists() else {}
    if not isinstance(environment, dict) or not all(
        isinstance(environment.get(key, {}), dict) for key in ("versions", "git", "hardware", "data")
    ):
        raise InputError(f"{path} does not describe where a run ran; {_REMEDY}.")
    counts = environment.get("data", {}).get("counts", {})
    if not isinstance(counts, dict) or not all(map(COUNT.holds, counts.values())):
        raise InputError(f"{path}: data.counts={brief(counts)} must be numbers of pictures; {_REMEDY}.")
    return environment


def read_overrides(folder: Path) -> list[str]:
    """The overrides of a run as they were written, none where they are not there. Raises InputError for others."""
    text = _text(folder, "overrides.yaml")
    overrides = parse_yaml(text, str(folder / ".hydra" / "overrides.yaml")) if text else []
    if not isinstance(overrides or [], list) or not all(map(TEXT.holds, overrides or [])):
        raise InputError(f"{folder / '.hydra' / 'overrides.yaml'} is no list of overrides; {_REMEDY}.")
    return overrides or []


def _text(folder: Path, name: str) -> str:
    path = folder / ".hydra" / name
    return read_text(path, inside=folder) if path.exists() else ""


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which is the score of an absent class."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_pictures(folder: Path) -> list[dict[str, Any]]:
    """What pictures.json lists, whose files are all in its own folder."""
    path = folder / "pictures" / "pictures.json"
    pictures = _without_nan(read_json(path, inside=folder)) if path.exists() else []
    if not isinstance(pictures, list) or len(pictures) > _MOST_PICTURES:
        raise InputError(f"{path} is no list of up to {_MOST_PICTURES} pictures; {_REMEDY}.")
    for picture in pictures:
        if (problem := _wrong_picture(picture, path.parent, folder)) is not None:
            raise InputError(f"{path} is damaged ({problem}); {_REMEDY}.")
    return pictures


def _wrong_picture(picture: Any, place: Path, folder: Path) -> str | None:
    if not isinstance(picture, dict) or not TEXT.holds(picture.get("name")) or not TEXT.holds(picture.get("role")):
        return f"{brief(picture)} is no picture with its name and role"
    if not all(key in picture and SCORE.holds(picture[key]) for key in ("miou", "accuracy")):
        return f"{brief(picture['name'])} lacks its scores"
    for key in ("image", "truth", "prediction"):
        file = picture.get(key)
        if not isinstance(file, str) or not _PICTURE.fullmatch(file):
            return f"{key}={brief(file)} must be the name of a file beside it"
        if not (place / file).resolve().is_relative_to(folder.resolve()):
            return f"{key}={brief(file)} is a link that leaves the folder"
    return None


def _read_table(path: Path, folder: Path) -> pd.DataFrame:
    table = _read_csv(path, folder) if path.exists() else pd.DataFrame()
    missing = [name for name in ("name", "miou") if name not in table]
    if missing and len(table.columns):
        raise InputError(f"{path} lacks {', '.join(missing)}: it is no table of scored pictures; {_REMEDY}.")
    if table.empty:
        return table
    for name in table.columns.difference([*_TEXT_COLUMNS]):
        if not pd.api.types.is_numeric_dtype(table[name]) or (table[name].abs() > 1e15).any():
            raise InputError(f"{path}: column {brief(name)} must hold numbers up to 1e15; {_REMEDY}.")
    return table.assign(name=table["name"].fillna(""))


def _read_csv(path: Path, folder: Path) -> pd.DataFrame:
    content = read_bytes(path, _LARGEST_TABLE, folder)
    head = content[: 2**20].partition(b"\n")[0]
    rows, columns = content.count(b"\n"), head.count(b",") + 1
    if rows > _MOST_ROWS or columns > _MOST_COLUMNS or len(head) == 2**20:
        raise InputError(f"{path} has more than {_MOST_ROWS:,} rows or {_MOST_COLUMNS:,} columns; {_REMEDY}.")
    text = dict.fromkeys(_TEXT_COLUMNS, str)  # a picture may be called 007 or NA
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # rows of other lengths
            return pd.read_csv(
                BytesIO(content), dtype=text, keep_default_na=False, na_values=[""], index_col=False, low_memory=False
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise InputError(f"{path} cannot be read as a table ({brief(error)}); {_REMEDY}.") from error


def _read_epochs(place: Path, folder: Path) -> pd.DataFrame:
    """Lightning's CSVLogger writes a row per logging call; an epoch's value is the mean of what it logged.

    A value without a place on a chart is left out.
    """
    path = place / "metrics.csv"
    table = _read_csv(path, folder) if path.exists() else pd.DataFrame()
    if "epoch" not in table or table.empty:
        return pd.DataFrame()
    table = table.select_dtypes("number").astype(np.float64)
    if "epoch" not in table or not table["epoch"].dropna().between(0, 1e6).all():
        raise InputError(f"{path}: column epoch must hold whole numbers; {_REMEDY}.")
    table = table[table["epoch"].notna()]
    table = table.where(table.abs() < _DRAWN).astype({"epoch": int})
    return table.groupby("epoch").mean(numeric_only=True).rename(lambda epoch: epoch + 1)
