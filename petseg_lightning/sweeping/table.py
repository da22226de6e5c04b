"""What a sweep says at its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from petseg_lightning.sweeping.state import FINISHED, PRUNED, RUNNING, State, claimed, score


@dataclass(frozen=True)
class Row:
    """A job: its number, the overrides that others do not have, its folder, and what became of it."""

    number: int
    overrides: str
    folder: Path

    @property
    def label(self) -> str:
        return f"job {self.number} ({self.overrides})"

    @property
    def status(self) -> str:
        """Of its state; `interrupted` where its process died, `not begun` where there is none."""
        state = State.read(self.folder)
        if state is None:
            return "not begun"
        if state.status == RUNNING:
            with claimed(self.folder) as free:
                return "interrupted" if free else "runs in another process"
        return state.status

    @property
    def test_miou(self) -> float | None:
        """Of a training that finished."""
        return score(self.folder, "test", "miou") if self.status == FINISHED else None


def print_table(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """A row per job, then the folder; returns the jobs that neither finished nor were pruned."""
    console = Console()
    table = Table(title="sweep", title_justify="left", title_style="bold")
    for column in ("job", "overrides", "state", "test mean IoU"):
        table.add_column(column, justify="right" if column in ("job", "test mean IoU") else "left", overflow="fold")
    for row in rows:
        score = row.test_miou
        table.add_row(str(row.number), row.overrides, row.status, "" if score is None else f"{score:.3f}")
    console.print(table)
    console.print(f"sweep folder  {folder}", soft_wrap=True, highlight=False)
    return [row for row in rows if row.status not in (FINISHED, PRUNED)]
