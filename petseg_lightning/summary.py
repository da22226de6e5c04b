"""What a door says at its end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(metrics: dict[str, Any], folder: Path) -> None:
    """A small table of scores, then the report and, as the last line, the run folder."""
    console = Console()
    splits = {split: result["protocols"][metrics["headline"]] for split, result in metrics["splits"].items()}
    table = Table(title=escape(metrics["target_label"]), title_justify="left", title_style="bold")
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right", style="bold" if split == metrics["reported_split"] else None)
    table.add_row("images", *(f"{result['num_images']:,}" for result in metrics["splits"].values()), end_section=True)
    rows = {
        "accuracy": "accuracy",
        "mean IoU": "miou",
        "mean IoU of an image": "mean_image_miou",
        "lowest": "lowest_image_miou",
    }
    for label, key in rows.items():
        table.add_row(label, *(_number(scores[key]) for scores in splits.values()))
    for name in metrics["class_names"]:
        table.add_row(escape(f"IoU {name}"), *(_number(scores["iou"][name]) for scores in splits.values()))
    console.print(table)
    if metrics["door"] == "evaluate":
        console.print(_protocols(metrics["splits"][metrics["reported_split"]]))
    console.print(f"report      {folder / 'report.html'}", soft_wrap=True, highlight=False)
    console.print(f"run folder  {folder}", soft_wrap=True, highlight=False)


def _protocols(split: dict[str, Any]) -> Table:
    table = Table(title="every protocol of these classes", title_justify="left", title_style="bold")
    for column in ("classes", "resolution", "accuracy", "mean IoU", "pet IoU"):
        table.add_column(column, justify="left" if column in ("classes", "resolution") else "right")
    for resolution, key in (("model", "protocols"), ("original", "original")):
        for scores in split[key].values():
            values = (_number(scores[name]) for name in ("accuracy", "miou", "pet_iou"))
            table.add_row(escape(scores["label"]), resolution, *values)
    return table


def _number(value: float | None) -> str:
    return "absent" if value is None else f"{value:.3f}"
