"""From the files of a run folder to report.html."""

import base64
import io
import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from petseg_lightning.conf_tree import config_dir
from petseg_lightning.data.picture_file import read_image
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_text
from petseg_lightning.report.causes import Cause, measure_causes
from petseg_lightning.report.figures import COLOURS, confidence_charts, learning_curves, picture_scatters
from petseg_lightning.report.run_folder import RunFolder

PAPER_IMAGES = {"train": 3680, "test": 3669}  # the official split of Oxford-IIIT Pet
_LARGEST_PICTURE = 2**24  # pixels of one that is embedded
PICTURE_SIZE = 256  # pixels, the largest side of an embedded picture
_SHOWN = ("mean_dice", "lowest_image_miou", "confusion_matrix", "dice", "precision", "recall")
ABSENT = "\N{EN DASH}"
PROTOCOLS = {
    "trimap": "Trimap",
    "species": "Species",
    "binary_border_pet": "Binary, the border is pet",
    "binary_border_background": "Binary, the border is background",
    "binary_border_ignore": "Binary, the border is not scored",
}


@dataclass(frozen=True)
class Comparison:
    """A headline score beside the paper's; None where it was not measured."""

    label: str
    ours: float | None
    paper: float
    meaning: str


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, from the files in that folder alone.

    The page is whole or not there, holds its pictures and charts, and is the same for the same files.

    Raises:
        InputError: the folder has no `metrics.json` of a train or evaluate run.
    """
    run = RunFolder.read(run_folder)
    _require_whole(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, signed=signed, embed=embed, flatten=flatten)
    html = environment.get_template("template.html.j2").render(_context(run))
    report = run_folder / "report.html"
    write_text(report, html.lstrip())
    return report


def _require_whole(run: RunFolder) -> None:
    """Raises InputError where what the page shows is missing."""
    lacking: set[str] = set()
    for content in run.metrics["splits"].values():
        headline = content["protocols"].get(run.metrics["headline"], {})
        lacking |= {key for key in _SHOWN if key not in headline}
        for scores in (*content["protocols"].values(), *content.get("original", {}).values()):
            lacking |= {key for key in ("class_names", "accuracy", "miou", "iou") if key not in scores}
        if headline.get("class_names") != run.metrics["class_names"]:
            lacking.add("scores of its classes")
    if not run.per_image.empty:
        lacking |= {f"{key} of single pictures" for key in ("accuracy",) if key not in run.per_image}
    if lacking:
        raise InputError(
            f"{run.path} lacks {', '.join(sorted(lacking))}: it is of another version of petseg_lightning, or damaged; "
            "make its report with the version that wrote it"
        )


def number(value: float | None) -> str:
    """Three decimals, or a dash for an absent class (None or NaN)."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float | None) -> str:
    """A share in percent with one decimal, or a dash for an absent class (None or NaN)."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.1%}"


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def embed(path: Path) -> str:
    """A picture as a WebP data URI, at most `PICTURE_SIZE` pixels wide and high."""
    buffer = io.BytesIO()
    small = read_image(path, max_pixels=_LARGEST_PICTURE)
    small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    small.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; a list is a leaf."""
    leaves = []
    for key, value in tree.items():
        leaves += flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def _context(run: RunFolder) -> dict[str, Any]:
    splits = run.metrics["splits"]
    scored = "test" if "test" in splits else next(iter(splits))
    headline = splits[scored]["protocols"][run.metrics["headline"]]
    colours = dict(zip(run.metrics["class_names"], cycle(COLOURS), strict=False)) | run.metrics.get("colors", {})
    causes = measure_causes(run.per_image)
    calibration = splits[scored].get("calibration")
    return {
        "run": run,
        "metrics": run.metrics,
        "scored": scored,
        "headline": headline,
        "scores": {split: values["protocols"][run.metrics["headline"]] for split, values in splits.items()},
        "colours": colours,
        "data_source": str(run.environment.get("data", {}).get("source", "")).lower(),
        "comparisons": _comparisons(run, scored),
        "paper_images": PAPER_IMAGES,
        "protocol_titles": PROTOCOLS,
        "curves": learning_curves(run, colours),
        "scatters": picture_scatters(run.per_image),
        "correlation": calibration and calibration["review"]["spearman"],
        "confidence": confidence_charts(calibration) if calibration else [],
        "breeds": _groups(run.per_image, "breed"),
        "species": _groups(run.per_image, "species"),
        "grid": [picture for picture in run.pictures if picture["role"] == "grid"],
        "worst": [picture for picture in run.pictures if picture["role"] == "worst"],
        "facts": _facts(run),
        "tags": _tags(run.per_image, causes),
        "causes": _cause_table(run.per_image, causes),
    }


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    metrics, environment = run.metrics, run.environment
    size = metrics.get("image_size")
    facts = {
        "Input": size and f"{size} x {size} pixels",
        "Parameters": (parameters := metrics.get("parameters")) and f"{parameters:,}",
        "Epochs": metrics.get("epochs"),
        "Best epoch": run.best_epoch,
        "Training": (seconds := metrics.get("train_seconds")) and f"{seconds / 60:.1f} min",
        "Speed": (rate := metrics.get("images_per_second")) and f"{rate:.0f} pictures/s",
        "Data": environment.get("data", {}).get("source"),
        "Started": (started := environment.get("started")) and str(started).replace("T", " "),
    }
    return [(label, str(value)) for label, value in facts.items() if value is not None]


def _comparisons(run: RunFolder, scored: str) -> list[Comparison]:
    def score(split: str, key: str) -> float | None:
        scores = run.metrics["splits"].get(split)
        return scores and scores["protocols"][run.metrics["headline"]][key]

    train, accuracy = score("train", "accuracy"), score(scored, "accuracy")
    gap = train - accuracy if scored != "train" and train is not None and accuracy is not None else None
    claims = yaml.safe_load((config_dir() / "claims" / "paper.yaml").read_text(encoding="utf-8"))
    paper = {name: claim["paper"] for name, claim in claims.items()}
    return [
        Comparison("Accuracy", accuracy, paper["accuracy"], "share of all pixels with the right class"),
        Comparison(
            "Mean IoU",
            score(scored, "miou"),
            paper["miou"],
            "mean over the classes, one matrix for all pictures",
        ),
        Comparison("Lowest picture", score(scored, "lowest_image_miou"), paper["lowest"], "mean IoU of the worst one"),
        Comparison("Over-fitting gap", gap, paper["gap"], f"training accuracy less {scored} accuracy"),
    ]


def _groups(per_image: pd.DataFrame, column: str) -> list[dict[Hashable, Any]]:
    """Mean score per value of a column, best first."""
    if column not in per_image:
        return []
    groups = per_image.groupby(column).agg(count=("miou", "size"), miou=("miou", "mean"))
    return groups.sort_values("miou", ascending=False).reset_index(names="name").to_dict("records")


def _tags(per_image: pd.DataFrame, causes: list[Cause]) -> dict[str, list[str]]:
    """The causes that hold for each picture, by its name."""
    return {
        name: [cause.tag(row) for cause in causes if cause.holds[row]]
        for row, name in enumerate(per_image.get("name", []))
    }


def _cause_table(per_image: pd.DataFrame, causes: list[Cause]) -> list[dict[str, Any]]:
    """How many pictures each cause holds for, and the mean score with and without it."""
    return [
        {
            "name": cause.name,
            "rule": cause.rule,
            "count": int(cause.holds.sum()),
            "with": per_image["miou"][cause.holds].mean(),
            "without": per_image["miou"][~cause.holds].mean(),
        }
        for cause in causes
    ]
