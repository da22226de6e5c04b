"""Trainings as they are compared: run folders, grouped into settings whose seeds and folds are the repetitions."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from petseg_lightning.checks import SEED
from petseg_lightning.comparing.folders import CONFIG, unusable
from petseg_lightning.effect import WITHOUT_EFFECT, effective_values, is_below
from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import brief, parse_yaml
from petseg_lightning.report.metrics_file import COUNT
from petseg_lightning.report.run_folder import RunFolder, read_overrides

ABSENT = "(no such key)"
MAX_NAMED = 3  # values that a label has beside the overrides
REPETITION = ("seed", "data.fold")  # what tells the repetitions of a setting apart
NO_SETTING = (*WITHOUT_EFFECT, *REPETITION, "sweep")


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: RunFolder
    seed: int
    fold: int | None
    """Of a cross-validation."""
    values: dict[str, Any]
    """Its setting: the values of the resolved config by dotted key, without those that have no effect."""
    overrides: tuple[str, ...]
    """Those of its overrides that belong to the setting."""

    @property
    def repetition(self) -> str:
        """Which of its setting it is, in words."""
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold}"

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
    """Trainings that differ in nothing but seed and fold, and a short name that no other setting has."""

    label: str
    runs: tuple[Run, ...]

    @property
    def values(self) -> dict[str, Any]:
        return self.runs[0].values

    def mean(self, name: str) -> float:
        """The mean over the runs of a headline score of the test split."""
        return float(np.mean([run.scores[name] for run in self.runs]))


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Skipped]]:
    """Read the trainings that ended, and say of the others why they are left out.

    A seed and fold that a setting has twice are no second repetition: the run that finished last stands for them.

    Raises:
        InputError: a damaged file of a run.
    """
    runs: dict[tuple[str, str], Run] = {}
    skipped = []
    for path in folders:
        if (reason := unusable(path)) is not None:
            skipped.append(Skipped(path, reason))
            continue
        run = _read(path)
        identity = (json.dumps(run.values, sort_keys=True, default=str), run.repetition)
        if identity in runs:
            older, run = sorted((runs[identity], run), key=_finished)
            skipped.append(Skipped(older.folder.path, f"trained again in {run.folder.path}"))
        runs[identity] = run
    return list(runs.values()), skipped


def _read(path: Path) -> Run:
    folder = RunFolder.read(path)
    if "test" not in folder.metrics["splits"] or folder.per_image.empty:
        raise InputError(f"{path} has no scores of single test pictures: give folders that petseg train left")
    config, overrides = parse_yaml(folder.config, str(path / CONFIG)), read_overrides(path)
    if not isinstance(config, dict):
        raise InputError(f"{path / CONFIG} is no configuration: leave the run out of runs=")
    values = setting_values(config)
    kept = tuple(text for text in overrides if not is_below(text.lstrip("+~").partition("=")[0], NO_SETTING))
    seed, data = config.get("seed", 0), config.get("data")
    fold = data.get("fold", 0) if isinstance(data, dict) and values.get("data.num_folds") is not None else None
    if not SEED.holds(seed) or not (fold is None or COUNT.holds(fold)):
        raise InputError(f"{path / CONFIG}: seed={brief(seed)} data.fold={brief(fold)} must be whole numbers")
    run = Run(folder, seed, fold, values, kept)
    _require_scores(run)
    return run


def _require_scores(run: Run) -> None:
    """Raises InputError where there is nothing to compare: no scores, or counts that none are."""
    if None in (run.scores.get("miou"), run.scores.get("accuracy")):
        raise InputError(f"{run.folder.path} has no mean IoU or accuracy of the test split: leave it out of runs=")
    if run.counts is not None:
        intersections, unions = run.counts
        if not ((intersections >= 0) & (intersections <= unions) & np.isfinite(unions)).all():
            raise InputError(f"{run.folder.path / 'per_image.csv'} has counts that none are: leave it out of runs=")


def setting_values(config: Any) -> dict[str, Any]:
    """The resolved values of a training's config by dotted key, without those that do not change its result."""
    return effective_values(config, leave_out=REPETITION)


def _finished(run: Run) -> str:
    return str(run.folder.environment.get("finished", ""))


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not scored on the same pixels; what they were trained on may differ.

    Raises:
        InputError: everything that is not the same in all runs, in one line.
    """
    facts: dict[str, Callable[[Run], Any]] = {
        "headline protocol": lambda run: run.folder.metrics["headline"],
        "classes": lambda run: ", ".join(run.folder.metrics["class_names"]),
        "image size": lambda run: run.folder.metrics.get("image_size"),
        "test pictures": lambda run: tuple(run.folder.per_image["name"]),
    }
    differing = [problem for fact, of in facts.items() if (problem := _differing(fact, of, runs))]
    if not differing:
        tables = [run.folder.per_image.columns for run in runs]
        common = [str(name) for name in tables[0] if all(name in table for table in tables)]
        differing += filter(None, [_differing("test pictures of fingerprint", lambda run: truth(run, common), runs)])
    if differing:
        raise InputError(
            f"these runs were scored on different things ({'; '.join(differing)}): compare runs of the same test "
            "pictures, resolution and classes"
        )
    for run in runs:
        if [*run.scores.get("iou", {})] != run.folder.metrics["class_names"]:
            raise InputError(f"{run.folder.path} has no IoU of each of its classes: leave it out of runs=")


def truth(run: Run, columns: Iterable[str]) -> str:
    """A fingerprint of the test pictures and their masks, from what per_image.csv says of them in these columns.

    The contrast is the only measure of the pictures themselves. Its mean in few digits is the same on every machine.
    """
    table, digest = run.folder.per_image, hashlib.sha256()
    for name in columns:
        if name == "pixels" or name.startswith("fraction_"):
            digest.update(name.encode() + table[name].to_numpy(np.float64).tobytes())
        elif name == "edge_contrast":
            digest.update(f"{name} {table[name].mean():.3f}".encode())
    return digest.hexdigest()[:12]


def _differing(fact: str, of: Callable[[Run], Any], runs: Sequence[Run]) -> str:
    """Which runs differ in a fact, in words; nothing where none do."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(of(run), []).append(run)
    texts = (_described(value, group) for value, group in groups.items())
    return f"{fact}: {', '.join(texts)}" if len(groups) > 1 else ""


def _described(value: Any, runs: Sequence[Run]) -> str:
    text = f"{len(value)} of their own" if isinstance(value, tuple) else "unknown" if value is None else value
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{text} in {runs[0].folder.path}{others}"


def group(runs: Sequence[Run]) -> list[Setting]:
    """Settings, that of the highest mean IoU first, their runs by seed and fold."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.fold or 0)):
        groups.setdefault(json.dumps(run.values, sort_keys=True, default=str), []).append(run)
    members = list(groups.values())
    labels = _labels([run.overrides for run, *_ in members], [run.values for run, *_ in members])
    settings = [Setting(label, tuple(group)) for label, group in zip(labels, members, strict=True)]
    return sorted(settings, key=lambda setting: (-setting.mean("miou"), setting.label))


def _labels(overrides: Sequence[Sequence[str]], values: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each setting's overrides have that those of the others have not all.

    Where that is the same for several, as with presets, the values that tell them apart stand beside it, or a number
    where these are many.
    """
    common = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    labels = [" ".join(text for text in own if text not in common) or "defaults" for own in overrides]
    for label in {label for label in labels if labels.count(label) > 1}:
        same = [i for i, one in enumerate(labels) if one == label]
        keys = dict.fromkeys(key for i in same for key in values[i])
        apart = [key for key in keys if len({str(values[i].get(key, ABSENT)) for i in same}) > 1]
        for number, i in enumerate(same, 1):
            described = " ".join(f"{key}={values[i].get(key, ABSENT)}" for key in apart)
            labels[i] = f"{label} ({described if len(apart) <= MAX_NAMED else number})"
    return labels


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
