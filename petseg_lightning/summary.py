"""What a door says at its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(metrics: dict[str, Any], folder: Path, console: Console | None = None) -> None:
    """A small table of scores, then the report and, as the last line, the run folder."""
    console = console or Console()
    headline = metrics["headline"]
    splits = {split: result["protocols"][headline] for split, result in metrics["splits"].items()}
    table = Table(title=metrics["target_label"], title_justify="left", title_style="bold")
    table.add_column("split")
    names = metrics["class_names"]
    for column in ("images", "accuracy", "mean IoU", *(f"IoU {name}" for name in names), "lowest image"):
        table.add_column(column, justify="right")
    for split, scores in splits.items():
        values = [scores["accuracy"], scores["miou"], *scores["iou"].values(), scores["lowest_image_miou"]]
        table.add_row(
            split,
            f"{metrics['splits'][split]['num_images']:,}",
            *("absent" if value is None else f"{value:.3f}" for value in values),
            style="bold" if split == metrics["reported_split"] else None,
        )
    console.print(table)
    console.print(f"report      {folder / 'report.html'}", soft_wrap=True, highlight=False)
    console.print(f"run folder  {folder}", soft_wrap=True, highlight=False)
