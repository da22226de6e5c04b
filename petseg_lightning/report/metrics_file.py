"""What metrics.json must be for somebody to make a page or a comparison of it: types and bounds, key by key."""

import re
from collections.abc import Iterator
from typing import Any

from petseg_lightning.plain_files import brief
from petseg_lightning.rules import Rule, is_number, one_of, optional, whole

NUMBER = Rule("a number", is_number)
SCORE = optional(NUMBER)
COUNT = whole(0)
TEXT = Rule("printable text", lambda v: isinstance(v, str) and len(v) < 2**16 and v.isprintable())
NAMES = Rule(
    "a list of different names",
    lambda v: isinstance(v, list) and len(v) < 255 and all(map(TEXT.holds, v)) and len(set(v)) == len(v),
)
COLOUR = Rule("a colour like #e69f00", lambda v: isinstance(v, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", v) is not None)
NUMBERS = Rule("a list of numbers", lambda v: isinstance(v, list) and all(map(SCORE.holds, v)))
MATRIX = Rule(
    "a square table of counts",
    lambda v: (
        isinstance(v, list)
        and all(isinstance(row, list) and len(row) == len(v) and all(map(COUNT.holds, row)) for row in v)
    ),
)
BY_NAME = {"*": SCORE}  # any key
PER_CLASS = ("iou", "dice", "precision", "recall")
SCORES: dict[str, Any] = {
    "label": TEXT,
    "class_names": NAMES,
    "confusion_matrix": MATRIX,
    **dict.fromkeys(("accuracy", "miou", "mean_dice", "pet_iou", "mean_image_accuracy", "mean_image_miou"), SCORE),
    "lowest_image_miou": SCORE,
    **dict.fromkeys(PER_CLASS, BY_NAME),
}
BOUNDARY: dict[str, Any] = {
    **dict.fromkeys(("tolerance", "tolerance_pixels", "band", "band_pixels"), NUMBER),
    **dict.fromkeys(("f_score", "precision", "recall", "iou"), BY_NAME),
    **dict.fromkeys(("mean_f_score", "mean_iou", "mean_image_f_score", "mean_image_iou"), SCORE),
}
_BINS: dict[str, Any] = {"pixels": NUMBERS, "probability": NUMBERS, "accuracy": NUMBERS}
_CURVE: dict[str, Any] = {"looked_at": NUMBERS, "found": NUMBERS, "rest_miou": NUMBERS}
_CALIBRATED: dict[str, Any] = {"expected_calibration_error": SCORE, "bins": _BINS}
CALIBRATION: dict[str, Any] = {
    "temperature": NUMBER,
    "before": _CALIBRATED,
    "after": _CALIBRATED,
    "review": {
        "bad_miou": NUMBER,
        "num_bad": COUNT,
        "look_at": BY_NAME,
        "spearman": SCORE,
        "curve": _CURVE,
    },
}
SPLIT: dict[str, Any] = {
    "num_images": COUNT,
    "protocols": {"*": SCORES},
    "original": {"*": SCORES},
    "boundary": BOUNDARY,
    "calibration": CALIBRATION,
}
METRICS: dict[str, Any] = {
    **dict.fromkeys(("door", "headline", "target", "target_label"), TEXT),
    "class_names": NAMES,
    "reported_split": one_of("train", "val", "test"),
    **dict.fromkeys(("image_size", "best_epoch", "epochs", "parameters"), optional(COUNT)),
    **dict.fromkeys(("train_seconds", "images_per_second"), SCORE),
    "colors": {"*": COLOUR},
    "num_images": {"*": COUNT},
    "splits": {"*": SPLIT},
}
NEEDED = ("class_names", "headline", "splits")
_WHOLE = {*map(id, (BOUNDARY, CALIBRATION, CALIBRATION["review"], _CALIBRATED, _BINS, _CURVE))}  # nothing may lack


def problems(metrics: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the content of a metrics.json that has all of `NEEDED`."""
    wrong = list(_wrong(metrics, METRICS, ""))
    yield from wrong
    if not wrong:
        yield from _contradictions(metrics)


def _wrong(value: Any, wanted: Any, key: str) -> Iterator[str]:
    if isinstance(wanted, Rule):
        if not wanted.holds(value):
            yield f"{brief(key)}={brief(value)} must be {wanted.text}"
        return
    if not isinstance(value, dict):
        yield f"{brief(key)}={brief(value)} must be a dict"
        return
    if id(wanted) in _WHOLE and (missing := wanted.keys() - value.keys()):
        yield f"{brief(key)} lacks {', '.join(sorted(missing))}"
    for name, one in value.items():
        if (rule := wanted.get("*", wanted.get(name))) is not None:
            yield from _wrong(one, rule, f"{key}.{name}" if key else name)


def _contradictions(metrics: dict[str, Any]) -> Iterator[str]:
    splits, headline = metrics["splits"], metrics["headline"]
    if lacking := [name for name, split in splits.items() if not {"num_images", "protocols"} <= split.keys()]:
        yield f"splits.{brief(lacking[0])} lacks num_images or protocols"
        return
    scored = splits.get("test", next(iter(splits.values()), None))
    if scored is None or headline not in scored["protocols"]:
        yield f"splits has no scores of {brief(headline)}"
    for split, content in splits.items():
        if not TEXT.holds(split):
            yield f"{brief(split)} is no name of a split"
        for scores in (*content["protocols"].values(), *content.get("original", {}).values()):
            names = scores.get("class_names", [*scores.get("iou", {})])
            if any([*scores[key]] != names for key in PER_CLASS if key in scores) or len(
                scores.get("confusion_matrix", names)
            ) != len(names):
                yield f"splits.{brief(split)} has scores of other classes than its protocol"
        boundary, calibration = content.get("boundary", {}), content.get("calibration")
        if any(
            set(boundary[key]) != set(metrics["class_names"]) for key in PER_CLASS if key in boundary and key != "dice"
        ):
            yield f"splits.{brief(split)}.boundary has other classes"
        if calibration is not None:
            yield from _of_calibration(calibration, f"splits.{brief(split)}.calibration")


def _of_calibration(calibration: dict[str, Any], key: str) -> Iterator[str]:
    bins = [[calibration[name]["bins"][column] for column in _BINS] for name in ("before", "after")]
    curve = [calibration["review"]["curve"][column] for column in _CURVE]
    if any(len({*map(len, columns)}) != 1 for columns in (*bins, curve)):
        yield f"{key} has columns of different lengths"
    if len({calibration[name]["expected_calibration_error"] is None for name in ("before", "after")}) != 1:
        yield f"{key} has one error of two"
    if not all(re.fullmatch(r"[01]\.?\d{0,6}", share) for share in calibration["review"]["look_at"]):
        yield f"{key}.review.look_at has keys that are no shares"
