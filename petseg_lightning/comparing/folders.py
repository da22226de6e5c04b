"""Which run folders are meant, answered before anything heavy is imported."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import brief, read_yaml

CONFIG = Path(".hydra", "config.yaml")
METRICS = "metrics.json"


def wanted_runs(cfg: DictConfig) -> list[Path]:
    """The folders that a config of the door wants to be compared, or the one that it holds against claims.

    Raises:
        InputError: no or wrong folders, or none of a finished training.
    """
    if cfg.get("claims") is not None:
        if cfg.run is None:
            raise InputError("claims= holds one run against claims: add run=<run folder>")
        if not Path(cfg.run, METRICS).is_file():
            raise InputError(f"{cfg.run} is no run folder: {METRICS} is missing; give the folder of a finished run")
        return [Path(cfg.run)]
    if cfg.runs is None:
        raise InputError("nothing to compare: add 'runs=<run folders, sweeps or a glob>', or claims=paper run=<folder>")
    folders = find_folders(cfg.runs if isinstance(cfg.runs, ListConfig) else [cfg.runs])
    reasons = [unusable(path) for path in folders]
    if None not in reasons:
        each = "; ".join(f"{path}: {reason}" for path, reason in zip(folders, reasons, strict=True))
        raise InputError(f"no finished training among the runs ({each}): wait for them, or give others")
    return folders


def find_folders(patterns: Iterable[str]) -> list[Path]:
    """The run folders that paths and globs mean; a folder that is none stands for all those below it.

    Raises:
        InputError: a path or glob that matches no folder, or folders without a run.
    """
    folders: dict[Path, None] = {}
    for pattern in map(str, patterns):
        names = [pattern] if Path(pattern).is_dir() else sorted(glob(pattern, recursive=True))  # noqa: PTH207 - absolute
        matched = [path for path in map(Path, names) if path.is_dir()]
        if not matched:
            raise InputError(f"runs={pattern} matches no folder: give run folders, sweeps, or a glob of them in quotes")
        found = [folder for path in matched for folder in _runs_in(path)]
        if not found:
            raise InputError(
                f"{pattern} is no run folder and holds none ({CONFIG} is missing): give folders that petseg train left"
            )
        folders |= dict.fromkeys(found)
    return sorted(folders, key=_in_natural_order)


def unusable(path: Path) -> str | None:
    """Why a run folder is not compared; None where it is of a training that ended."""
    job = path / ".hydra" / "hydra.yaml"
    node: Any = read_yaml(job, inside=path) if job.is_file() else {"hydra": {"job": {"name": "train"}}}
    for key in ("hydra", "job", "name"):
        node = node.get(key) if isinstance(node, dict) else None
    if node != "train":
        return f"a run of {brief(node)}, not a training"
    return None if (path / METRICS).is_file() else f"unfinished (no {METRICS})"


def _runs_in(path: Path) -> list[Path]:
    return [path] if (path / CONFIG).is_file() else [config.parents[1] for config in path.rglob(str(CONFIG))]


def _in_natural_order(path: Path) -> list[tuple[int, str]]:
    """Job 2 of a sweep comes before job 10."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]
