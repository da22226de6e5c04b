"""The page of a comparison, in the style of the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import petseg_lightning.report.page as report
from petseg_lightning.comparing.comparisons import Comparison
from petseg_lightning.comparing.runs import WITHOUT_EFFECT, Setting, Skipped, differences
from petseg_lightning.comparing.tables import interval, p_text
from petseg_lightning.conf_tree import shown
from petseg_lightning.files import write_text


@dataclass(frozen=True)
class Disagreement:
    """A picture on which two settings disagree; `files` are picture, truth and both predictions, or empty."""

    name: str
    first: float
    second: float
    files: tuple[Path, ...]


def write_page(
    folder: Path,
    settings: Sequence[Setting],
    board: pd.DataFrame,
    comparisons: Sequence[tuple[Comparison, Sequence[Disagreement]]],
    skipped: Sequence[Skipped],
    notes: Sequence[str],
    options: dict[str, Any],
) -> Path:
    """Write index.html: one file with its pictures inside.

    Args:
        folder: where.
        settings: in the order of the rows of `board`.
        board: of `tables.leaderboard`.
        comparisons: each with the pictures on which its settings disagree.
        skipped: folders that were left out.
        notes: what has to be known to read the tables, a sentence each.
        options: `confidence`, `resamples` and whether the counts are `exact`.
    """
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(report.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=report.number, signed=report.signed, embed=report.embed, shown=shown, p_text=p_text
    )
    html = environment.get_template("template.html.j2").render(
        folder=folder,
        settings=settings,
        rows=board.to_dict("records"),
        classes=settings[0].runs[0].folder.metrics["class_names"],
        metrics=settings[0].runs[0].folder.metrics,
        comparisons=comparisons,
        differences=differences,
        interval=interval,
        extent=max((max(abs(one.result.low), abs(one.result.high)) for one, _ in comparisons), default=0) or 1,
        skipped=skipped,
        notes=notes,
        without_effect=WITHOUT_EFFECT,
        **options,
    )
    path = folder / "index.html"
    write_text(path, html.lstrip())
    return path
