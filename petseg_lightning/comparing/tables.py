"""The tables of a comparison, as data frames, Markdown and in the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from petseg_lightning.comparing.comparisons import Comparison
from petseg_lightning.comparing.runs import Setting, Skipped, differences
from petseg_lightning.comparing.statistics import spread
from petseg_lightning.conf_tree import shown
from petseg_lightning.files import write_text


def leaderboard(settings: Sequence[Setting], confidence: float) -> pd.DataFrame:
    """A row for each setting: seeds; mean, deviation and interval of mean IoU and accuracy; IoU per class.

    The IoU of a class is the mean over those seeds in which it is not absent.
    """
    rows = []
    for setting in settings:
        row: dict[str, Any] = {"setting": setting.label, "seeds": len(setting.runs)}
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
                "seeds_first": len(one.first.runs),
                "seeds_second": len(one.second.runs),
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


def leaderboard_markdown(table: pd.DataFrame, confidence: float) -> str:
    """The leaderboard with rounded numbers."""
    rows = [_headings(table, confidence), ["---"] * len(_headings(table, confidence)), *_cells(table)]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def print_tables(
    table: pd.DataFrame,
    comparisons: Sequence[Comparison],
    skipped: Sequence[Skipped],
    notes: Sequence[str],
    confidence: float,
) -> None:
    """The leaderboard, the comparisons, what was left out, and what has to be known to read them.

    Settings have numbers here, as their names may be long; which is whose stands below the leaderboard.
    """
    console = Console()
    board = Table(title="Test, mean over seeds", title_justify="left", title_style="bold")
    for heading in ["", *_headings(table, confidence)[1:]]:
        board.add_column(heading, justify="right")
    for number, row in enumerate(_cells(table), 1):
        board.add_row(f"[bold]{number}[/]", *row[1:])
    console.print(board)
    numbers = {label: str(number) for number, label in enumerate(table["setting"], 1)}
    for label, place in numbers.items():
        console.print(f"{place}: {label}", soft_wrap=True, highlight=False, markup=False)
    if comparisons:
        console.print(_comparisons(comparisons, numbers, confidence))
    for line in (*(f"left out: {one.path}: {one.reason}" for one in skipped), *notes):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _comparisons(comparisons: Sequence[Comparison], numbers: dict[str, str], confidence: float) -> Table:
    table = Table(title="Differences in mean IoU", title_justify="left", title_style="bold")
    for heading in ("", "difference", f"{confidence:.0%} interval", "p (Holm)", "verdict"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for one in comparisons:
        result, names = one.result, (numbers[one.first.label], numbers[one.second.label])
        table.add_row(
            *(" - ".join(names), f"{result.value:+.4f}", f"{result.low:+.4f} to {result.high:+.4f}"),
            *(p_text(one.p_holm), one.verdict_about(*names)),
            style="bold" if one.is_evidence else None,
        )
    return table


def _headings(table: pd.DataFrame, confidence: float) -> list[str]:
    interval = f"{confidence:.0%} interval"
    classes = [column.removeprefix("iou_") for column in table.columns if column.startswith("iou_")]
    return ["setting", "seeds", "mean IoU", interval, "accuracy", interval, *(f"IoU {name}" for name in classes)]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    cells = []
    for row in table.to_dict("records"):
        scores = []
        for name in ("miou", "accuracy"):
            scores += [_with_deviation(row[name], row[f"{name}_sd"]), interval(row[f"{name}_low"], row[f"{name}_high"])]
        classes = [_number(value) for key, value in row.items() if str(key).startswith("iou_")]
        cells.append([row["setting"], str(row["seeds"]), *scores, *classes])
    return cells


def _with_deviation(mean: float, deviation: float) -> str:
    return _number(mean) if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def interval(low: float, high: float) -> str:
    """Three decimals; a dash for the interval of a single seed."""
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def p_text(p: float) -> str:
    """Three decimals; never zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def write_tables(folder: Path, board: pd.DataFrame, comparisons: pd.DataFrame, confidence: float) -> None:
    """Write leaderboard.csv, leaderboard.md, and comparisons.csv where anything was compared."""
    write_text(folder / "leaderboard.csv", board.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "leaderboard.md", leaderboard_markdown(board, confidence))
    if len(comparisons):
        write_text(folder / "comparisons.csv", comparisons.to_csv(index=False, float_format="%.6g"))
