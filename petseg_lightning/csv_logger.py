"""The values of a training as a table on disk."""

import csv
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from petseg_lightning.files import replacing


class CSVLogger(loggers.CSVLogger):
    """Lightning's CSVLogger, whose table is whole at every moment.

    Lightning's own appends to it, and writes all of it again in place when a value has a new name: a full disk or a
    kill leaves half a line of it, or nothing.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _Table(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _Table(ExperimentWriter):
    def save(self) -> None:
        """Put the table with the new rows in the place of the one before."""
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        rows: list[dict[str, Any]] = self.metrics
        known = self.metrics_keys if path.is_file() else []
        keys = sorted({*known, *chain(*rows)})
        with replacing(path) as temporary:
            if keys == known:
                shutil.copyfile(path, temporary)
            elif known:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = [*csv.DictReader(file), *rows]
            with temporary.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, keys)
                if keys != known:
                    writer.writeheader()
                writer.writerows(rows)
        self.metrics_keys, self.metrics = keys, []
