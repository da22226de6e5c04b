"""The report of a run: one self-contained HTML page, made from the files of its run folder."""

from petseg_lightning.report.page import write_report

__all__ = ["write_report"]
