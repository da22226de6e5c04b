"""Trainings as they are compared: run folders, grouped into settings whose seeds are the repetitions."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from petseg_lightning.errors import InputError
from petseg_lightning.report.run_folder import RunFolder

CONFIG = Path(".hydra", "config.yaml")
ABSENT = "(no such key)"
WITHOUT_EFFECT = (  # on the scores: keys, with all below them, that are no part of a setting
    "seed",  # it tells the repetitions of a setting apart
    "ckpt_path",  # a resumed training ends where an undisturbed one does
    "paths",
    "logger",
    "data.root",  # the fingerprint of the data is compared
    "data.download",
    "data.cache",
    "data.cache_dir",
    "data.num_workers",
    "callbacks.best_checkpoint.dirpath",
    "callbacks.last_checkpoint",
    "callbacks.learning_rate",
    "callbacks.model_summary",
    "callbacks.progress_bar",
    "callbacks.validation_pictures",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: RunFolder
    seed: int
    values: dict[str, Any]
    """Its setting: the values of the resolved config by dotted key, without those that have no effect."""
    overrides: tuple[str, ...]
    """Those of its overrides that belong to the setting."""

    @property
    def scores(self) -> dict[str, Any]:
        """The headline scores of the test split."""
        return self.folder.metrics["splits"]["test"]["protocols"][self.folder.metrics["headline"]]

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Intersections and unions of every test picture, float64 (N,K) each; None where they were not written."""
        table, names = self.folder.per_image, self.folder.metrics["class_names"]
        columns = [[f"{kind}_{name}" for name in names] for kind in ("intersection", "union")]
        if not {*columns[0], *columns[1]} <= set(table.columns):
            return None
        intersections, unions = (table[names].to_numpy(np.float64) for names in columns)
        return intersections, unions


@dataclass(frozen=True)
class Skipped:
    """A folder that is not compared, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Setting:
    """Trainings that differ in their seed alone, and a short name that no other setting has."""

    label: str
    runs: tuple[Run, ...]

    @property
    def values(self) -> dict[str, Any]:
        return self.runs[0].values

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def mean(self, name: str) -> float:
        """The mean over seeds of a headline score of the test split."""
        return float(np.mean([run.scores[name] for run in self.runs]))


def find_folders(patterns: str | Iterable[str]) -> list[Path]:
    """The run folders that paths and globs mean; a folder that is none stands for all those below it.

    Raises:
        InputError: a path or glob that matches no folder, or folders without a run.
    """
    folders: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else map(str, patterns):
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


def _runs_in(path: Path) -> list[Path]:
    return [path] if (path / CONFIG).is_file() else [config.parents[1] for config in path.rglob(str(CONFIG))]


def _in_natural_order(path: Path) -> list[tuple[int, str]]:
    """Job 2 of a sweep comes before job 10."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Skipped]]:
    """Read the trainings that ended, and say of the others why they are left out.

    A seed that a setting has twice is no second repetition: the run that finished last stands for it.

    Raises:
        InputError: a damaged file of a run.
    """
    runs: dict[tuple[str, int], Run] = {}
    skipped = []
    for path in folders:
        if (reason := _unusable(path)) is not None:
            skipped.append(Skipped(path, reason))
            continue
        run = _read(path)
        identity = (json.dumps(run.values, sort_keys=True, default=str), run.seed)
        if identity in runs:
            older, run = sorted((runs[identity], run), key=_finished)
            skipped.append(Skipped(older.folder.path, f"the setting and seed of {run.folder.path} again"))
        runs[identity] = run
    return list(runs.values()), skipped


def _unusable(path: Path) -> str | None:
    job = path / ".hydra" / "hydra.yaml"
    name = OmegaConf.select(OmegaConf.load(job), "hydra.job.name") if job.is_file() else "train"
    if name != "train":
        return f"a run of {name}, not a training"
    return None if (path / "metrics.json").is_file() else "unfinished (no metrics.json)"


def _read(path: Path) -> Run:
    folder = RunFolder.read(path)
    if "test" not in folder.metrics["splits"] or folder.per_image.empty:
        raise InputError(f"{path} has no scores of single test pictures: give folders that petseg train left")
    try:
        config = OmegaConf.create(folder.config)
        values, overrides = setting_values(config), yaml.safe_load(folder.overrides) or []
    except yaml.YAMLError as error:
        raise InputError(f"{path}/.hydra cannot be read ({error}): leave the run out of runs=") from error
    kept = tuple(text for text in overrides if not _has_no_effect(text.lstrip("+~").partition("=")[0]))
    return Run(folder, int(OmegaConf.select(config, "seed", default=0)), values, kept)


def setting_values(config: Any) -> dict[str, Any]:
    """The resolved values of a training's config by dotted key, without those that do not change its result."""
    values = {}
    for key, value in _leaves(OmegaConf.to_container(config)):
        if not _has_no_effect(key):
            resolved = OmegaConf.select(config, key, throw_on_resolution_failure=False)
            values[key] = value if resolved is None or isinstance(value, list | dict) else resolved
    return values


def _has_no_effect(key: str) -> bool:
    return any(f"{key}.".startswith(f"{other}.") for other in WITHOUT_EFFECT)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dicts, and lists of dicts, are gone through; what is empty is a leaf."""
    if isinstance(node, dict) and node:
        children: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        children = enumerate(node)
    else:
        yield prefix, node
        return
    for key, child in children:
        yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _finished(run: Run) -> str:
    return str(run.folder.environment.get("finished", ""))


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not scored on the same pixels.

    Raises:
        InputError: everything that is not the same in all runs, in one line.
    """
    facts: dict[str, Callable[[Run], Any]] = {
        "data (fingerprint)": lambda run: run.folder.environment.get("data", {}).get("fingerprint"),
        "headline protocol": lambda run: run.folder.metrics["headline"],
        "image size": lambda run: run.folder.metrics.get("image_size"),
        "test pictures": lambda run: tuple(run.folder.per_image["name"]),
    }
    differing = []
    for fact, of in facts.items():
        groups: dict[Any, list[Run]] = {}
        for run in runs:
            groups.setdefault(of(run), []).append(run)
        if len(groups) > 1:
            differing.append(f"{fact}: {', '.join(_described(value, group) for value, group in groups.items())}")
    if differing:
        raise InputError(
            f"these runs were scored on different things ({'; '.join(differing)}): compare runs of the same data, "
            "resolution and classes; another data.fold or data.train_fraction is other data, too"
        )


def _described(value: Any, runs: Sequence[Run]) -> str:
    text = f"{len(value)} of their own" if isinstance(value, tuple) else "unknown" if value is None else value
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{text} in {runs[0].folder.path}{others}"


def group(runs: Sequence[Run]) -> list[Setting]:
    """Settings, that of the highest mean IoU first, their runs by seed."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault(json.dumps(run.values, sort_keys=True, default=str), []).append(run)
    members = list(groups.values())
    labels = _labels([run.overrides for run, *_ in members])
    settings = [Setting(label, tuple(group)) for label, group in zip(labels, members, strict=True)]
    return sorted(settings, key=lambda setting: (-setting.mean("miou"), setting.label))


def _labels(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What each setting's overrides have that those of the others have not all; numbered where that is not enough."""
    common = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    labels = [" ".join(text for text in own if text not in common) or "defaults" for own in overrides]
    return [
        f"{label} ({labels[:i].count(label) + 1})" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def differences(first: Setting, second: Setting) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ between two settings, with both values; `ABSENT` where there is no such key."""
    keys = dict.fromkeys([*first.values, *second.values])
    pairs = {key: (first.values.get(key, ABSENT), second.values.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def find_baseline(settings: Sequence[Setting], text: str) -> Setting:
    """The one setting with this override or value of one, else the one whose overrides contain the text.

    Raises:
        InputError: none or several.
    """

    def words(setting: Setting) -> set[str]:
        return {part for item in (*setting.runs[0].overrides, setting.label) for part in (item, item.partition("=")[2])}

    found = [setting for setting in settings if text in words(setting)] or [
        setting for setting in settings if text in " ".join([*setting.runs[0].overrides, setting.label])
    ]
    if len(found) != 1:
        labels = "; ".join(setting.label for setting in settings)
        raise InputError(f"baseline={text} is in {len(found)} settings and must be in one: they are {labels}")
    return found[0]
