"""Remake report.html: python -m petseg_lightning.report run=<folder>."""

from pathlib import Path

from omegaconf import DictConfig

from petseg_lightning.config import door
from petseg_lightning.report import write_report


def run(cfg: DictConfig) -> Path:
    """Write the report of the folder `cfg.run` and return its path."""
    return write_report(Path(cfg.run))


main = door("report", run)

if __name__ == "__main__":
    main()
