"""The tables of a comparison, as data frames, Markdown and in the terminal."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petseg_lightning.comparing.comparisons import Comparison
from petseg_lightning.comparing.runs import Setting, Skipped, differences
from petseg_lightning.comparing.statistics import spread
from petseg_lightning.conf_tree import shown
from petseg_lightning.files import write_text


def leaderboard(settings: Sequence[Setting], confidence: float) -> pd.DataFrame:
    """A row for each setting: runs; mean, deviation and interval of mean IoU and accuracy; IoU per class.

    The IoU of a class is the mean over those runs in which it is not absent.
    """
    rows = []
    for setting in settings:
        row: dict[str, Any] = {"setting": setting.label, "runs": len(setting.runs)}
        for name in ("miou", "accuracy"):
            result = spread([run.scores[name] for run in setting.runs], confidence)
            row |= {name: result.mean, f"{name}_sd": result.deviation}
            row |= {f"{name}_low": result.low, f"{name}_high": result.high}
        classes = pd.DataFrame([run.scores["iou"] for run in setting.runs], dtype=float).mean()
        rows.append(row | {f"iou_{name}": value for name, value in classes.items()})
    return pd.DataFrame(rows)


def comparison_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row for each comparison; a difference is first less second."""
    return pd.DataFrame(
        [
            {
                "first": one.first.label,
                "second": one.second.label,
                "runs_first": len(one.first.runs),
                "runs_second": len(one.second.runs),
                "difference": one.result.value,
                "low": one.result.low,
                "high": one.result.high,
                "standard_error": one.result.standard_error,
                "degrees_of_freedom": one.result.degrees_of_freedom,
                "p_seeds": one.result.p_seeds,
                "p_pictures": one.result.p_pictures,
                "p_holm": one.p_holm,
                "verdict": one.verdict,
                "differs": "; ".join(
                    f"{key}: {shown(pair[0])} | {shown(pair[1])}"
                    for key, pair in differences(one.first, one.second).items()
                ),
            }
            for one in comparisons
        ]
    )


def leaderboard_markdown(board: pd.DataFrame, confidence: float) -> str:
    """The leaderboard with rounded numbers."""
    headings = ["setting", "runs"]
    for score in ("mean IoU", "accuracy"):
        headings += [score, f"{score}, {confidence:.0%} interval"]
    rows = []
    for row in board.to_dict("records"):
        scores = [cell for name in ("miou", "accuracy") for cell in _score(row, name)]
        rows.append([row["setting"], str(row["runs"]), *scores, *(_number(row[key]) for key in _classes(board))])
    return markdown([*headings, *_classes(board).values()], rows)


def comparisons_markdown(table: pd.DataFrame, confidence: float) -> str:
    """The comparisons with rounded numbers."""
    headings = ["first", "second", "difference in mean IoU", f"{confidence:.0%} interval", "p (Holm)", "verdict"]
    rows = [
        [
            *(row["first"], row["second"], f"{row['difference']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}"),
            *(p_text(row["p_holm"]), row["verdict"]),
        ]
        for row in table.to_dict("records")
    ]
    return markdown(headings, rows)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (headings, *rows)]
    lines.insert(1, "| " + " | ".join(["---"] * len(headings)) + " |")
    return "\n".join(lines) + "\n"


def print_tables(
    board: pd.DataFrame,
    comparisons: Sequence[Comparison],
    skipped: Sequence[Skipped],
    notes: Sequence[str],
    confidence: float,
) -> None:
    """The leaderboard, the comparisons, what was left out, and what has to be known to read them.

    Settings have numbers here, as their names may be long; which is whose stands below the leaderboard.
    """
    console = Console()
    for table in _boards(board, confidence, console.width):
        console.print(table)
    numbers = {label: str(number) for number, label in enumerate(board["setting"], 1)}
    for label, place in numbers.items():
        console.print(f"{place}: {label}", soft_wrap=True, highlight=False, markup=False)
    if comparisons:
        console.print(_comparisons(comparisons, numbers, confidence))
    for line in (*(f"left out: {one.path}: {one.reason}" for one in skipped), *notes):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def print_places(page: Path, folder: Path) -> None:
    """Where the page is and, as the last line, the run folder."""
    console = Console()
    console.print(f"page        {page}", soft_wrap=True, highlight=False)
    console.print(f"run folder  {folder}", soft_wrap=True, highlight=False)


def _boards(board: pd.DataFrame, confidence: float, width: int) -> Iterator[Table]:
    """The leaderboard as tables that fit the terminal: what is too wide for one goes on in the next."""
    rows = board.to_dict("records")
    columns = [["runs", *(str(row["runs"]) for row in rows)]]
    for name, heading in (("miou", "mean IoU"), ("accuracy", "accuracy")):
        columns.append([f"{heading}\n{confidence:.0%} interval", *("\n".join(_score(row, name)) for row in rows)])
    columns += [
        [escape(heading.replace(" ", "\n", 1)), *(_number(row[key]) for row in rows)]
        for key, heading in _classes(board).items()
    ]
    numbers = ["", *(f"[bold]{number}[/]" for number in range(1, len(rows) + 1))]
    edge = 3  # characters around a column, and one at the right of all
    start = len(str(len(rows))) + edge + 1
    tables, used = [[numbers]], start
    for column in columns:
        wide = max(len(line) for cell in column for line in cell.split("\n")) + edge
        if used + wide > width and len(tables[-1]) > 1:
            tables.append([numbers])
            used = start
        tables[-1].append(column)
        used += wide
    for number, table in enumerate(tables):
        shown_table = _titled("Test, continued" if number else "Test, mean over runs")
        shown_table.show_lines = True
        for heading, *_ in table:
            shown_table.add_column(heading, justify="right")
        for cells in zip(*(column[1:] for column in table), strict=True):
            shown_table.add_row(*cells)
        yield shown_table


def _comparisons(comparisons: Sequence[Comparison], numbers: dict[str, str], confidence: float) -> Table:
    table = _titled("Differences in mean IoU")
    for heading in ("", "difference", f"{confidence:.0%} interval", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for one in comparisons:
        result, names = one.result, (numbers[one.first.label], numbers[one.second.label])
        table.add_row(
            *(" - ".join(names), f"{result.value:+.4f}", f"{result.low:+.4f} to {result.high:+.4f}"),
            *(p_text(one.p_holm), one.verdict_about(*names)),
            style="bold" if one.is_evidence else None,
        )
    return table


def _titled(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _classes(board: pd.DataFrame) -> dict[str, str]:
    """The columns of the classes, each with its heading."""
    return {name: name.replace("iou_", "IoU ", 1) for name in board.columns if name.startswith("iou_")}


def _score(row: dict[Any, Any], name: str) -> tuple[str, str]:
    """Mean and deviation of a score, and its interval."""
    mean, deviation = row[name], row[f"{name}_sd"]
    text = _number(mean) if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"
    return text, interval(row[f"{name}_low"], row[f"{name}_high"])


def interval(low: float, high: float) -> str:
    """Three decimals; a dash for the interval of a single run."""
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def p_text(p: float) -> str:
    """Three decimals; never zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def write_tables(folder: Path, board: pd.DataFrame, comparisons: pd.DataFrame, confidence: float) -> None:
    """Write leaderboard.csv and .md, and comparisons.csv and .md where anything was compared."""
    write_text(folder / "leaderboard.csv", board.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "leaderboard.md", leaderboard_markdown(board, confidence))
    if len(comparisons):
        write_text(folder / "comparisons.csv", comparisons.to_csv(index=False, float_format="%.6g"))
        write_text(folder / "comparisons.md", comparisons_markdown(comparisons, confidence))
