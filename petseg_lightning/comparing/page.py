"""The page of a comparison, in the style of the report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import petseg_lightning.report.page as report
from petseg_lightning.comparing.comparisons import Comparison
from petseg_lightning.comparing.runs import WITHOUT_EFFECT, Setting, Skipped, differences
from petseg_lightning.comparing.statistics import Difference
from petseg_lightning.comparing.tables import interval, p_text
from petseg_lightning.conf_tree import shown
from petseg_lightning.files import write_text

BREAKS = re.compile(r"(?<=[=,/_:])(?=\w)|(?<=\.)(?=[^\W\d])")  # of long names, never in a number


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
    rows, best = board.to_dict("records"), settings[0]
    return render(
        folder / "index.html",
        "template.html.j2",
        folder=folder,
        settings=settings,
        rows=rows,
        numbers={setting.label: number for number, setting in enumerate(settings, 1)},
        leaders=[row["setting"] for row in rows if f"{row['miou']:.3f}" == f"{rows[0]['miou']:.3f}"],
        rivals=[one for one, _ in comparisons if best in (one.first, one.second) and not one.is_evidence],
        classes=settings[0].runs[0].folder.metrics["class_names"],
        metrics=settings[0].runs[0].folder.metrics,
        comparisons=comparisons,
        differences=differences,
        interval=interval,
        extent=_extent([one.result for one, _ in comparisons]),
        has_folds=any(run.fold is not None for setting in settings for run in setting.runs),
        skipped=skipped,
        notes=notes,
        without_effect=WITHOUT_EFFECT,
        **options,
    )


def render(path: Path, template: str, **values: Any) -> Path:
    """Write a page from a template of this folder, in the style of the report."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(report.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=report.number,
        signed=report.signed,
        embed=report.embed,
        shown=shown,
        p_text=p_text,
        breakable=breakable,
    )
    write_text(path, environment.get_template(template).render(values).lstrip())
    return path


def breakable(text: Any) -> Markup:
    """A name that goes on in the next line after a space, else after a sign, never within a word or a number."""
    parts = (Markup("<wbr>").join(map(escape, BREAKS.split(part))) for part in str(text).split(" "))
    return Markup(" ").join(Markup('<span class="part">{}</span>').format(part) for part in parts)


def _extent(results: Sequence[Difference]) -> float:
    """Half of the scale on which differences are drawn: of all intervals, but for those that would dwarf the others."""
    ends = [max(abs(one.low), abs(one.high)) for one in results]
    if not any(ends):
        return 1.0
    return max(min(max(ends), 3 * median(ends)), *(abs(one.value) for one in results)) or max(ends)
