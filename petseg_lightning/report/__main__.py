"""Remake report.html: python -m petseg_lightning.report run=<folder>."""

from pathlib import Path

from omegaconf import DictConfig

from petseg_lightning.config import door


def run(cfg: DictConfig) -> Path:
    """Write the report of the folder `cfg.run`, print its path and return it."""
    from rich.console import Console

    from petseg_lightning.report.page import write_report

    report = write_report(Path(cfg.run))
    Console().print(f"report  {report.absolute()}", soft_wrap=True, highlight=False)
    return report


main = door("report", run)

if __name__ == "__main__":
    main()
