"""A run held against claims: values that somebody reports, each with a reading that says when it holds."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from petseg_lightning.comparing.page import render
from petseg_lightning.comparing.tables import markdown, print_places
from petseg_lightning.config import settings_of
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_text
from petseg_lightning.report.run_folder import RunFolder
from petseg_lightning.rules import is_number

COLUMNS = ("claim", "paper", "holds if", "measured", "holds")


class ClaimError(InputError):
    """A claim does not hold: nothing that the user gave is wrong, but the door ends with exit code 1."""


@dataclass(frozen=True)
class Claim:
    """A reported value, how it is measured in a run, and from where to where the measured value may lie."""

    text: str
    measure: Callable[[RunFolder], float | None]
    paper: float | None = None
    """As reported; None where it was said without a number."""
    at_least: float = -math.inf
    at_most: float = math.inf

    def __post_init__(self) -> None:
        if self.paper is not None and not is_number(self.paper):
            raise InputError(f"the claim {self.text!r} has paper={self.paper}, which must be null or a number")

    @property
    def reading(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return ", ".join(f"{word} {bound}" for word, bound in bounds if math.isfinite(bound))

    def holds(self, value: float | None) -> bool:
        """Whether a measured value meets the reading; what was not measured does not."""
        return value is not None and self.at_least <= value <= self.at_most


def score(run: RunFolder, split: str, name: str) -> float | None:
    """A headline score of a split; None where the run does not have it."""
    if split not in run.metrics["splits"]:
        return None
    return run.metrics["splits"][split]["protocols"].get(run.metrics["headline"], {}).get(name)


def gap(run: RunFolder, first: str, second: str, name: str) -> float | None:
    """A headline score of one split less that of another; None where one is missing."""
    scores = score(run, first, name), score(run, second, name)
    return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def share_above(run: RunFolder, higher: str, lower: str) -> float | None:
    """The share of the scored pictures in which one column is above another; None without such columns."""
    if not {higher, lower} <= set(run.per_image.columns) or run.metrics.get("reported_split", "test") != "test":
        return None
    return float((run.per_image[higher] > run.per_image[lower]).mean())


def check_claims(claims: Iterable[Claim], run: RunFolder, folder: Path) -> pd.DataFrame:
    """Print every claim beside what was measured, and write claims.csv, claims.md and index.html into `folder`.

    Raises:
        ClaimError: one does not hold, or was not measured.
    """
    with settings_of("claims"):
        measured = [(claim, claim.measure(run)) for claim in claims]
    table = pd.DataFrame(
        {
            "claim": claim.text,
            "paper": claim.paper,
            "holds if": claim.reading,
            "measured": value,
            "holds": claim.holds(value),
        }
        for claim, value in measured
    )
    write_text(folder / "claims.csv", table.to_csv(index=False, float_format="%.6g"))
    lines = _lines(measured)
    origin = _origin(run)
    write_text(folder / "claims.md", markdown(COLUMNS, lines) + "\n" + "  \n".join(origin) + "\n")
    values = {"folder": folder, "lines": lines, "columns": COLUMNS, "origin": origin}
    page = render(folder / "index.html", "claims.html.j2", **values)
    _print(lines, origin)
    print_places(page, folder)
    failed = [f"{one.text}: {_number(value)}, not {one.reading}" for one, value in measured if not one.holds(value)]
    if failed:
        raise ClaimError(f"{len(failed)} of {len(measured)} claims do not hold ({'; '.join(failed)})")
    return table


def _lines(measured: Sequence[tuple[Claim, float | None]]) -> list[list[str]]:
    """Of the table, a cell for each of `COLUMNS`."""
    return [
        [one.text, _number(one.paper), one.reading, _number(value), "yes" if one.holds(value) else "no"]
        for one, value in measured
    ]


def _origin(run: RunFolder) -> list[str]:
    """Where it was measured, and on what."""
    data, metrics = run.environment.get("data", {}), run.metrics
    splits = ", ".join(f"{values['num_images']:,} {split}" for split, values in metrics["splits"].items())
    classes = metrics.get("target_label", " / ".join(metrics["class_names"]))
    return [
        f"measured in {run.path}",
        f"of {data.get('source', 'unknown data')}: {splits} pictures; classes {classes}",
    ]


def _print(lines: Sequence[Sequence[str]], origin: Sequence[str]) -> None:
    console = Console()
    table = Table(title="The claims", title_justify="left", title_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("paper", "measured") else "left")
    for *cells, verdict in lines:
        table.add_row(*cells, f"[green]{verdict}[/]" if verdict == "yes" else f"[red]{verdict}[/]")
    console.print(table)
    for line in origin:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
