"""The folder of a prediction: what is in it already, and what is added, whole or not at all."""

import errno
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular, remove_unfinished, replacing, write_json, write_text
from petseg_lightning.inference.cutout import background_of
from petseg_lightning.inference.predictor import Prediction
from petseg_lightning.inference.sources import Source
from petseg_lightning.metrics.calibration import BAD_MIOU
from petseg_lightning.metrics.forecast import bad_risks, number_to_look_at

LARGE = 8_000_000  # pixels; of larger pictures one is finished at a time, as each takes hundreds of MB
MAX_PROBABILITIES = 2**30  # bytes
JOURNAL, SETTINGS = "predictions.jsonl", "settings.json"
VIDEO_ENDING = ".mp4"
FOUND = 0.8  # share of the bad pictures that a review should find
_NONE_EXPECTED = 0.05  # fewer bad pictures than this are none
_LONGEST_ROW = 2**20  # bytes in the journal
_QUICK = 1  # level of PNG compression: larger files by a tenth, several times faster


def _save_mask(prediction: Prediction, path: Path) -> None:
    prediction.mask.save(path, compress_level=_QUICK)


def _save_overlay(prediction: Prediction, path: Path) -> None:
    prediction.overlay.save(path, quality=90, icc_profile=prediction.image.info.get("icc_profile"))


def _save_cutout(prediction: Prediction, path: Path) -> None:
    prediction.cutout.save(path, compress_level=_QUICK, icc_profile=prediction.image.info.get("icc_profile"))


def _save_probabilities(prediction: Prediction, path: Path) -> None:
    names = np.array(prediction.class_names)
    np.savez_compressed(path, probabilities=prediction.probabilities, class_names=names)


KINDS: dict[str, tuple[str, Callable[[Prediction, Path], None]]] = {  # by folder: ending of the files, how one is saved
    "masks": (".png", _save_mask),
    "overlays": (".jpg", _save_overlay),
    "cutouts": (".png", _save_cutout),
    "probabilities": (".npz", _save_probabilities),
}


def left_out(path: Path, error: Exception) -> InputError:
    """The line of a file that cannot be predicted.

    Raises the error where no other file can be, either, as the disk is full.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return InputError(f"{path}: does not fit into memory; save it smaller, or end other programs")
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise error
        return InputError(f"{path}: its results cannot be written ({error}); rename it, or give another output=")
    return InputError(f"{path}: cannot be predicted ({type(error).__name__}: {error}); leave it out")


def shown(text: str) -> str:
    """A text in one line, in which what a screen cannot show is written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


class Results:
    """Results by picture: files in a folder of each kind, and a row each in `predictions.jsonl`.

    Args:
        folder: is made.
        kinds: of KINDS.
        settings: what results depend on, as plain values; "classes" are their names.
        overwrite: also a picture whose results are there.

    Raises:
        InputError: the folder holds results of other settings, and `overwrite` is not set.
    """

    def __init__(self, folder: Path, kinds: Iterable[str], settings: Mapping[str, Any], *, overwrite: bool) -> None:
        self.folder, self.kinds, self.overwrite = folder, list(kinds), overwrite
        self.num_classes = len(settings["classes"])
        self._rows: dict[str, dict[str, Any]] = {}
        before = _read_json(folder / SETTINGS)
        if before is not None and before != settings:
            if not overwrite:
                raise InputError(
                    f"{folder} holds results of another model or other settings ({_difference(before, settings)}); "
                    "give another output=, or overwrite=true"
                )
        else:
            self._rows = _read_rows(folder / JOURNAL)
        remove_unfinished(folder)
        write_json(folder / SETTINGS, settings)
        write_text(folder / JOURNAL, "".join(map(_line, self._rows.values())))

    def path(self, kind: str, source: Source) -> Path:
        ending = VIDEO_ENDING if source.is_video else KINDS[kind][0]
        return self.folder / kind / f"{source.name}{ending}"

    def paths(self, source: Source) -> list[Path]:
        """The files of a picture, a kind each; of a video there are overlays only."""
        return [self.path(kind, source) for kind in self.kinds if kind == "overlays" or not source.is_video]

    def row(self, source: Source, description: Mapping[str, Any]) -> dict[str, Any]:
        """What `add` takes."""
        return {"name": source.name, **description, "stamp": _stamp(source.path)}

    def has(self, source: Source) -> bool:
        """Whether the results of this very file are there, and wanted as they are."""
        row = self._rows.get(source.name)
        if self.overwrite or row is None or row["stamp"] != _stamp(source.path):
            return False
        return all(path.is_file() for path in self.paths(source))

    def require_room(self, width: int, height: int) -> None:
        """Raise InputError for a picture whose results would take too much memory, before it is read."""
        if "probabilities" in self.kinds and width * height * self.num_classes * 4 > MAX_PROBABILITIES:
            raise InputError(
                f"the probabilities of {width} x {height} pixels and {self.num_classes} classes take more than "
                f"{MAX_PROBABILITIES / 2**30:g} GiB; save it smaller, or give probabilities=false"
            )

    def write(self, source: Source, prediction: Prediction) -> dict[str, Any]:
        """Write the files of a picture; its `row`."""
        for kind in self.kinds:
            with replacing(self.path(kind, source)) as path:
                KINDS[kind][1](prediction, path)
        return self.row(source, describe(prediction))

    def add(self, row: dict[str, Any]) -> None:
        """Note that the files of a picture are there."""
        self._rows[row["name"]] = row
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def write_tables(self, sources: Iterable[Source], forecast: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Write predictions.csv and .json of all that is there, and review.csv, least sure first.

        Args:
            sources: the pictures that come first, in this order; those of commands before follow.
            forecast: of the model, see `metrics.forecast`; None leaves the `risk` of each picture empty.
        """
        names = dict.fromkeys([*(source.name for source in sources if source.name in self._rows), *self._rows])
        found = [self._rows[name] for name in names]
        confidences = np.array([row["confidence"] for row in found])
        risks = [None] * len(found) if forecast is None else bad_risks(forecast, confidences).round(4).tolist()
        rows = [
            {
                **{key: value for key, value in row.items() if key != "stamp"},
                "name": _in_utf8(row["name"]),
                "risk": risk,
            }
            for row, risk in zip(found, risks, strict=True)
        ]
        table = pd.DataFrame(rows)
        write_json(self.folder / "predictions.json", rows)
        write_text(self.folder / "predictions.csv", table.to_csv(index=False, float_format="%.6g"))
        if rows:
            review = table.sort_values("confidence", kind="stable")[["name", "confidence", "risk"]]
            write_text(self.folder / "review.csv", review.to_csv(index=False, float_format="%.4f"))
        return rows


def review_advice(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """How much of review.csv to look at; None where nothing is known."""
    risks = [row["risk"] for row in sorted(rows, key=lambda row: row["confidence"])]
    if not risks or None in risks:
        return None
    if (expected := sum(risks)) < _NONE_EXPECTED:
        return f"no bad pictures expected (mean IoU below {BAD_MIOU})"
    if len(risks) == 1:
        return f"the picture is bad (mean IoU below {BAD_MIOU}) with a probability of {expected:.0%}"
    return (
        f"look at the first {number_to_look_at(np.array(risks), FOUND)} of {len(risks):,} in review.csv: about "
        f"{FOUND:.0%} of the {expected:.1f} that are expected to be bad (mean IoU below {BAD_MIOU})"
    )


def describe(prediction: Prediction) -> dict[str, Any]:
    """Size, share of each class, box around what is not background (pixels; right and bottom excluded), confidence."""
    classes, names = prediction.classes, prediction.class_names
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    there = classes != background_of(names)
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (None,) * 4
    return {
        "width": prediction.image.width,
        "height": prediction.image.height,
        **{f"share_{name}": round(float(share), 6) for name, share in zip(names, shares, strict=True)},
        **{
            side: None if v is None else int(v) for side, v in zip(("left", "top", "right", "bottom"), box, strict=True)
        },
        "confidence": round(prediction.confidence, 4),
    }


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # it is gone meanwhile
        return None
    return [status.st_size, status.st_mtime_ns]


def _in_utf8(name: str) -> str:
    """With an escape for each byte of a file's name that is not in UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by name, the last of each; a line that was cut off is as if it had not been written."""
    rows: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return rows
    with open_regular(path) as file:
        while 0 < len(line := file.readline(_LONGEST_ROW)) < _LONGEST_ROW:
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                row = json.loads(line)
                usable = 0 <= row["confidence"] <= 1 and isinstance(row["stamp"], list)
                if usable and json.dumps(row, allow_nan=False):
                    rows[str(row["name"])] = row
    return rows


def _read_json(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            return json.loads(file.read(_LONGEST_ROW))
    except (OSError, ValueError, RecursionError):
        return None


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    keys = [key for key, value in now.items() if not isinstance(before, dict) or before.get(key) != value]
    return ", ".join(keys) or "settings"
