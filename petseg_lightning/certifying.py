"""Whether a run comes out again: steps behind one of its checkpoints, and its test."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, LearningRateMonitor, ModelSummary, ProgressBar
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.callbacks.replay import FILE, note
from petseg_lightning.callbacks.step_seed import StepSeed
from petseg_lightning.callbacks.validation_pictures import ValidationPictures
from petseg_lightning.conf_tree import flatten, shown
from petseg_lightning.config import build, build_all, compose, plain
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.effect import WITHOUT_EFFECT, is_below
from petseg_lightning.environment import describe_environment
from petseg_lightning.errors import InputError
from petseg_lightning.evaluation import evaluate
from petseg_lightning.files import write_json
from petseg_lightning.plain_files import read_json, read_yaml
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.report.run_folder import read_environment, read_metrics
from petseg_lightning.resume_command import quoted
from petseg_lightning.resuming import SETTINGS, effective_settings, newest_checkpoint, setting_differences
from petseg_lightning.trainer import LAST, PREVIOUS
from petseg_lightning.training import DATA_FILES, build_datamodule, build_module, choose_compute

TOLERANCE = 1e-3  # relative difference of a loss, and difference of a mean IoU, up to which a run is reproduced
NAMED = 5  # changes in a line
_NOT_REPLAYED = (Checkpoint, EarlyStopping, LearningRateMonitor, ModelSummary, ProgressBar, ValidationPictures)


def certify(cfg: DictConfig) -> dict[str, Any]:
    """Replay steps of the training in `cfg.certify` and its test, and say in one line what came out.

    Args:
        cfg: what conf/evaluate.yaml composes to; where its data are, is taken from there if given.

    Returns:
        What certificate.json in the folder of the evaluation holds.

    Raises:
        InputError: the folder is of no finished training, its settings or data have changed, or it is not reproduced.
    """
    run, folder = Path(cfg.certify), Path(cfg.paths.output_dir)
    quiet_libraries()
    metrics, environment = read_metrics(run), read_environment(run)
    path, checkpoint, noted = _start(run)
    training = compose("train", [f"resume={quoted(str(run))}", *_places(cfg)], output_dir=folder)
    datamodule = build_datamodule(training)
    if changed := [*_changed_settings(run, training, checkpoint), *_changed_files(run, datamodule)]:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        raise InputError(f"{run} cannot come out again, for this has changed: {'; '.join(changed[:NAMED])}{more}")
    module = build_module(training, datamodule, pretrained=False)
    compute = choose_compute(training, module, datamodule, checkpoint)
    callbacks = [one for one in build_all(training.callbacks, Callback) if not isinstance(one, _NOT_REPLAYED)]
    steps = _Steps(len(noted["losses"]))
    trainer: Trainer = build(
        training.trainer,
        Trainer,
        precision=compute.precision,
        callbacks=[*callbacks, StepSeed(training.seed), steps, EvaluationRecorder(measure=False)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    with warnings.catch_warnings(action="ignore"), suppress(_ReplayedError):  # of the callbacks that are left out
        trainer.fit(module, datamodule, ckpt_path=path, weights_only=True)
    again, best = note(steps.losses, module), str(run / "checkpoints" / "best.ckpt")
    test = evaluate(trainer, module, datamodule, ("test",), ckpt_path=best).metrics()["splits"]["test"]
    if not trainer.is_global_zero:
        return {}
    words, good = _verdict(noted, again, metrics["splits"]["test"]["protocols"], test["protocols"])
    elsewhere = "; ".join(_other_machine(environment))
    certificate = {"run": str(run), "checkpoint": path.name, "verdict": words, "other": elsewhere}
    write_json(folder / "certificate.json", certificate)
    line = f"{words} ({len(steps.losses)} steps behind {path.name}, and the test)"
    line += f"; other than there: {elsewhere}" if elsewhere else ""
    if not good:
        raise InputError(f"{run}: {line}")
    Console().print(line, soft_wrap=True, highlight=False)
    return certificate


def _start(run: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The newest checkpoint of a run whose steps were noted, its content, and the note."""
    notes = read_json(run / FILE, inside=run) if (run / FILE).exists() else {}
    for name in (LAST, PREVIOUS, "best.ckpt"):
        path = run / "checkpoints" / name
        found = newest_checkpoint(path)
        noted = notes.get(str(found[1]["global_step"])) if found and isinstance(notes, dict) else None
        if found and isinstance(noted, dict) and isinstance(noted.get("losses"), list):
            return path, found[1], noted
    raise InputError(f"{run} has no checkpoint whose next steps were noted; give the folder of a run of petseg train")


def _places(cfg: DictConfig) -> list[str]:
    given = {key: cfg.data.get(key) for key in ("root", "cache_dir", "cache", "num_workers")}
    return [f"data.{key}={quoted(str(value))}" for key, value in given.items() if value is not None]


def _changed_settings(run: Path, training: DictConfig, checkpoint: dict[str, Any]) -> Iterator[str]:
    """Settings of the folder that are not those that its checkpoint was trained with."""
    yield from setting_differences(checkpoint[SETTINGS]["config"], effective_settings(training))
    file, now = Path(".hydra", "config.yaml"), flatten(plain(training))
    for key, value in flatten(read_yaml(run / file, inside=run) or {}).items():
        told = isinstance(value, dict) or "${" in str(value) or is_below(key, WITHOUT_EFFECT)
        if not told and key in now and now[key] != value:
            yield f"{key}: {shown(now[key])} in the training, {shown(value)} in {file}"


def _changed_files(run: Path, datamodule: SegmentationDataModule) -> Iterator[str]:
    """Files of the data whose contents are not those of the training."""
    before, now = read_json(run / DATA_FILES, inside=run), datamodule.file_digests()
    for split in now:
        was: Any = before.get(split, {}) if isinstance(before, dict) else {}
        for name in sorted(was.keys() | now[split].keys()):
            if was.get(name) != now[split].get(name):
                state = "is gone" if name not in now[split] else "is new" if name not in was else "has other contents"
                yield f"{name} of {split} {state}"


def _other_machine(environment: dict[str, Any]) -> Iterator[str]:
    """What a run ran on and this process does not."""
    now = describe_environment()
    for part, keys in (("versions", now["versions"]), ("hardware", ("processor", "threads", "gpus"))):
        for key in keys:
            was, here = environment.get(part, {}).get(key), now[part][key]
            if was != here:
                yield f"{key} {shown(was)} there, {shown(here)} here"


def _verdict(noted: dict[str, Any], again: dict[str, Any], before: Any, now: Any) -> tuple[str, bool]:
    """What came out, in words, and whether it is the same but for rounding."""
    if noted == again and all(now[name]["confusion_matrix"] == before[name]["confusion_matrix"] for name in now):
        return "reproduced to the bit", True
    loss = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(again["losses"], noted["losses"], strict=True))
    score = max(abs((now[name]["miou"] or 0) - (before[name]["miou"] or 0)) for name in now)
    good = loss <= TOLERANCE and score <= TOLERANCE
    words = "reproduced within" if good else "not reproduced: it differs by"
    return f"{words} {loss:.1g} of a loss and {score:.1g} of a mean IoU", good


class _ReplayedError(Exception):
    """All steps were done."""


class _Steps(Callback):
    """Ends a training after some steps and has their losses."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self.losses.append(outputs["loss"].detach())
        if len(self.losses) == self.number:
            raise _ReplayedError
