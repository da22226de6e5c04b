"""What the values of a configuration must be, checked before anything is built or imported."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from petseg_lightning.conf_tree import comment, flatten, shown
from petseg_lightning.errors import InputError
from petseg_lightning.rules import (
    Rule,
    above,
    any_of,
    at_least,
    between,
    from_to,
    is_number,
    list_of,
    matches,
    one_of,
    optional,
    whole,
)

SEED = whole(0, 2**32 - 1)
AMOUNT = any_of(whole(1), Rule("a fraction up to 1.0", lambda v: isinstance(v, float) and 0 < v <= 1))
PRECISION = one_of(
    "auto",
    "32-true",
    "16-mixed",
    "bf16-mixed",
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    16,
    32,
    64,
)
PROBABILITY = from_to(0, 1)
SHARE = Rule("a number from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1)
FOLDER = Rule("the path of a folder", lambda v: isinstance(v, str) and bool(v))
PATH = Rule("a path (of digits alone: ./123)", lambda v: isinstance(v, str) and bool(v))
TEXT = Rule("text", lambda v: isinstance(v, str) and bool(v))
FILE_NAME = Rule("the name of a file, without folder and braces", matches(r"[^/{}]+"))
LOGGED = Rule("val/miou, val/accuracy, val/loss, train/loss or val/iou_<class>", matches(r"(val|train)/\w.*"))
MAX_OR_MIN = one_of("max", "min")
BUILT = Rule("a part with a _target_", lambda v: isinstance(v, dict) and isinstance(v.get("_target_"), str))
PROFILER = any_of(one_of("simple", "advanced", "pytorch"), BUILT)
NAMES = Rule("a list of names", lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v))
TRANSFORMS = Rule("a list of parts with a _target_", lambda v: isinstance(v, list) and all(map(BUILT.holds, v)))
SPLIT_LISTS = Rule(
    "{trainval: <file>, test: <file>}",
    lambda v: isinstance(v, dict) and set(v) == {"trainval", "test"} and all(map(PATH.holds, v.values())),
)
CLASS_NAMES = Rule(
    "a list of two or more different names",
    lambda v: isinstance(v, list) and all(isinstance(n, str) and n for n in v) and len(v) == len(set(v)) and len(v) > 1,
)

ARCHITECTURES = (  # of segmentation_models_pytorch, whose import takes seconds
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet"),
    *("Segformer", "DPT"),
)

TERM = re.compile(r"^loss\.(terms\.[^.]+\.)+")  # a key of a term of a sum: the rule is that of the loss
RULES: dict[str, Rule] = {
    "seed": SEED,
    "split": one_of("train", "val", "test"),
    "out": FOLDER,
    "run": optional(PATH),
    "ckpt": optional(any_of(PATH, list_of("a list of such paths", PATH))),
    "resume": optional(PATH),
    "certify": optional(PATH),
    "ckpt_path": optional(PATH),
    "source": any_of(PATH, list_of("a list of them", PATH)),
    "output": FOLDER,
    "masks": one_of(True, False),
    "overlays": one_of(True, False),
    "cutouts": one_of(True, False),
    "probabilities": one_of(True, False),
    "overwrite": one_of(True, False),
    "tiling": any_of(one_of("auto", "none"), whole(16, 65536)),
    "tta": one_of("none", "flip", "multiscale"),
    "batch_size": whole(1, 4096),
    "golden": optional(PATH),
    "license": optional(TEXT),
    "device": Rule("auto, cpu, cuda, cuda:<number> or mps", matches(r"auto|cpu|mps|cuda(:\d{1,3})?")),
    "format": one_of("bundle", "onnx", "openvino", "torch"),
    "precision": one_of("fp32", "fp16", "int8"),
    "backend": one_of("auto", "torch", "onnx", "openvino"),
    "trust_code": one_of(True, False),
    "shard_size": whole(1),
    "host": Rule("a name or an address", lambda v: isinstance(v, str) and bool(v)),
    "port": whole(0, 65535),
    "hosts": Rule("a list of names", lambda v: isinstance(v, list) and all(isinstance(n, str) and n for n in v)),
    "timeout": above(0),
    "max_megabytes": above(0),
    "max_megapixels": above(0),
    "concurrency": whole(1, 256),
    "examples": optional(FOLDER),
    "runs": optional(any_of(FOLDER, list_of("a list of folders or globs", FOLDER))),
    "baseline": optional(Rule("text", lambda v: is_number(v) or TEXT.holds(v))),
    "resamples": whole(100, 1_000_000),
    "confidence": between(0, 1),
    "max_pairs": whole(1),
    "num_pictures": whole(0, 1000),
    "mode": one_of("data", "train", "inference", "startup", "all"),
    "rounds": whole(1, 10_000),
    "seconds": above(0),
    "backends": list_of("a list of torch, onnx and openvino", one_of("torch", "onnx", "openvino")),
    "precisions": list_of("a list of fp32, fp16 and int8", one_of("fp32", "fp16", "int8")),
    "batch_sizes": list_of("a list of whole numbers, at least 1", whole(1)),
    "input_sizes": optional(list_of("a list of whole numbers, at least 8", whole(8))),
    "preprocessing.mean": list_of("three numbers from -1000 to 1000", from_to(-1e3, 1e3), 3),
    "preprocessing.std": list_of("three numbers from 0.000001 to 1000", from_to(1e-6, 1e3), 3),
    "paths.data_dir": FOLDER,
    "paths.log_dir": FOLDER,
    "data.root": FOLDER,
    "data.image_size": whole(8, 8192),
    "data.batch_size": whole(1, 65536),
    "data.val_fraction": between(0, 1),
    "data.test_fraction": between(0, 1),
    "data.num_folds": optional(whole(2)),
    "data.fold": whole(0),
    "data.train_fraction": Rule("a number above 0, 1 at most", lambda v: is_number(v) and 0 < v <= 1),
    "data.split_seed": SEED,
    "data.num_workers": optional(whole(0, 256)),
    "data.cache": one_of("disk", "memory", "none"),
    "data.shuffle_buffer": whole(1),
    "data.device_augment": one_of(True, False),
    "data.cache_dir": optional(FOLDER),
    "data.target": one_of("trimap", "species", "binary"),
    "data.border": one_of(None, "pet", "background", "ignore"),
    "data.download": one_of(True, False),
    "data.num_trainval": whole(1, 1_000_000),
    "data.num_test": whole(1, 1_000_000),
    "data.picture_size": whole(8, 8192),
    "data.synthetic_seed": SEED,
    "data.class_names": CLASS_NAMES,
    "data.ignore_value": whole(0, 255),
    "data.mask_values": optional(list_of("a list of whole numbers from 0 to 255", whole(0, 255))),
    "data.palette": optional(
        list_of("a list of colours of three whole numbers from 0 to 255", list_of("", whole(0, 255), 3))
    ),
    "data.split_lists": optional(SPLIT_LISTS),
    "augmentation.transforms": TRANSFORMS,
    "augmentation.factors": NAMES,
    "augmentation.amounts": NAMES,
    "augmentation.strength": from_to(0, 2),
    "augmentation.copy_paste.p": PROBABILITY,
    "augmentation.copy_paste.scale": list_of("two numbers above 0", above(0), 2),
    "mixing.alpha": above(0),
    "mixing.p": PROBABILITY,
    "compute.precision": PRECISION,
    "compute.channels_last": one_of("auto", True, False),
    "compute.compile": one_of(True, False),
    "compute.fused": one_of(True, False),
    "compute.tf32": one_of(True, False),
    "compute.deterministic": one_of(True, False, "warn"),
    "compute.benchmark": one_of(True, False),
    "model.base_channels": whole(1, 8192),
    "model.depth": whole(1, 8),
    "model.last_channels": optional(whole(1, 8192)),
    "model.skip_connections": one_of(True, False),
    "model.arch": Rule(
        f"one of {', '.join(ARCHITECTURES)}",
        lambda v: isinstance(v, str) and v.lower() in map(str.lower, ARCHITECTURES),
    ),
    "model.encoder": TEXT,
    "model.encoder_weights": optional(TEXT),
    "model.options": optional(Rule("a part with keys of its own", lambda v: isinstance(v, dict))),
    "model.freeze_encoder": one_of(True, False),
    "model.encoder_lr_scale": above(0),
    "loss.class_weights": any_of(one_of(None, "measured"), list_of("a list of weights, none below 0", at_least(0))),
    "loss.label_smoothing": Rule("a number from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1),
    "loss.gamma": at_least(0),
    "loss.smooth": at_least(0),
    "loss.alpha": at_least(0),
    "loss.beta": at_least(0),
    "loss.per_image": one_of(True, False),
    "loss.border_weight": at_least(0),
    "loss.border_width": whole(1),
    "loss.weights": Rule(
        "a number, at least 0, for each term, and above 0 for one",
        lambda v: isinstance(v, dict) and all(is_number(w) and w >= 0 for w in v.values()) and any(v.values()),
    ),
    "optimizer.lr": above(0),
    "optimizer.weight_decay": at_least(0),
    "optimizer.momentum": SHARE,
    "optimizer.opt": Rule("the name of an optimizer of timm", lambda v: isinstance(v, str) and bool(v)),
    "optimizer.layer_decay": Rule("a number above 0, 1 at most", lambda v: is_number(v) and 0 < v <= 1),
    "optimizer.decay_norm_and_bias": one_of(True, False),
    "optimizer.warmup_steps": whole(0),
    "scheduler.scheduler": optional(BUILT),
    "scheduler.monitor": LOGGED,
    "scheduler.scheduler.mode": MAX_OR_MIN,
    "scheduler.interval": one_of("step", "epoch"),
    "scheduler.scheduler.eta_min": at_least(0),
    "scheduler.scheduler.pct_start": between(0, 1),
    "scheduler.scheduler.power": above(0),
    "scheduler.scheduler.warmup_fraction": SHARE,
    "scheduler.scheduler.after.eta_min": at_least(0),
    "scheduler.scheduler.after.power": above(0),
    "scheduler.scheduler.sched": one_of("constant", "cosine", "poly", "rsqrt", "tanh", "wsd"),
    "scheduler.scheduler.warmup_lr": at_least(0),
    "scheduler.scheduler.min_lr": at_least(0),
    "scheduler.scheduler.factor": between(0, 1),
    "scheduler.scheduler.patience": whole(0),
    "find.lr": BUILT,
    "find.batch_size": BUILT,
    "find.lr.min_lr": above(0),
    "find.lr.max_lr": above(0),
    "find.lr.num_steps": whole(20, 10_000),
    "find.batch_size.max_batch_size": whole(2),
    "find.batch_size.memory_share": Rule("a number above 0, 1 at most", lambda v: is_number(v) and 0 < v <= 1),
    "callbacks.best_checkpoint.filename": FILE_NAME,
    "callbacks.best_checkpoint.monitor": LOGGED,
    "callbacks.best_checkpoint.mode": MAX_OR_MIN,
    "callbacks.progress_bar.refresh_rate": whole(0),
    "callbacks.model_summary.max_depth": whole(-1),
    "callbacks.early_stopping.monitor": LOGGED,
    "callbacks.early_stopping.mode": MAX_OR_MIN,
    "callbacks.early_stopping.patience": whole(1),
    "callbacks.weight_averaging.decay": SHARE,
    "callbacks.weight_averaging.start": SHARE,
    "callbacks.weight_averaging.statistics_batches": whole(1),
    "callbacks.schedule_free.statistics_batches": whole(1),
    "callbacks.validation_pictures.num_pictures": whole(1, 1000),
    "search.trials": whole(1),
    "search.parallel": whole(1),
    "search.monitor": one_of("val/miou", "val/accuracy"),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.devices": any_of(whole(1, 1024), one_of(-1, "auto"), list_of("a list of device numbers", whole(0))),
    "trainer.num_nodes": whole(1),
    "trainer.max_epochs": whole(1),
    "trainer.checkpoint_minutes": above(0),
    "trainer.precision": PRECISION,
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": optional(above(0)),
    "trainer.check_val_every_n_epoch": whole(1),
    "trainer.limit_train_batches": optional(AMOUNT),
    "trainer.limit_val_batches": optional(AMOUNT),
    "trainer.limit_test_batches": optional(AMOUNT),
    "trainer.overfit_batches": any_of(whole(0), Rule("a fraction", lambda v: isinstance(v, float) and 0 <= v <= 1)),
    "trainer.fast_dev_run": any_of(one_of(True, False), whole(1)),
    "trainer.log_every_n_steps": whole(1),
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.profiler": optional(PROFILER),
    "trainer.deterministic": one_of(True, False, "warn"),
}

ADDED: dict[str, Rule] = {  # keys that Lightning takes besides, and judges late
    "trainer.max_steps": whole(-1),
    "trainer.min_steps": optional(whole(0)),
    "trainer.min_epochs": optional(whole(0)),
    "trainer.val_check_interval": optional(AMOUNT),
    "trainer.reload_dataloaders_every_n_epochs": whole(0),
    "trainer.gradient_clip_algorithm": optional(one_of("norm", "value")),
    "trainer.barebones": one_of(True, False),
    "trainer.detect_anomaly": one_of(True, False),
    "trainer.enable_checkpointing": one_of(True, False),
    "trainer.enable_model_summary": one_of(True, False),
    "trainer.enable_progress_bar": one_of(True, False),
    "trainer.inference_mode": one_of(True, False),
    "trainer.sync_batchnorm": one_of(True, False),
}

PARTS = {".".join(names[:depth]) for names in (key.split(".") for key in RULES) for depth in range(1, len(names))}


def rule_of(key: str) -> Rule | None:
    """The rule for the value of a key; None where only its kind is known, from conf/."""
    return RULES.get(TERM.sub("loss.", key)) or ADDED.get(key)


def check(cfg: DictConfig, *, multirun: bool = False) -> None:
    """Refuse a composed configuration that has a wrong or missing value.

    Keys that the door does not have are not looked at. `multirun` says that the configuration is one of a
    sweep, which the strategies that start processes of their own cannot be part of.

    Raises:
        InputError: every problem, in one line, joined by `; `.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    problems = [*map(_not_given, missing), *_wrong_values(values, missing)]
    problems = problems or _contradictions(values, multirun)
    if problems:
        raise InputError("; ".join(problems))


def check_any(configs: Sequence[DictConfig], *, multirun: bool = False) -> None:
    """Refuse the configurations of a sweep, or of a single run, unless one of them passes `check`.

    Raises:
        InputError: the problems of the first one.
    """
    errors = []
    for cfg in configs:
        try:
            check(cfg, multirun=multirun)
        except InputError as error:
            errors.append(error)
    if len(errors) == len(configs):
        raise errors[0]


def _not_given(key: str) -> str:
    meaning = comment(key)
    return f"{key} is not given: add {key}=..." + (f" ({meaning})" if meaning else "")


def _wrong_values(values: dict, missing: Iterable[str]) -> list[str]:
    data = values.get("data")
    stored = isinstance(data, dict) and "_target_" not in data  # data=checkpoint: null is the checkpoint's own value
    problems = []
    for key, value in flatten(values).items():
        if key in PARTS and key not in RULES and not isinstance(value, dict | None):
            problems.append(f"{key}={shown(value)} must be a part with keys of its own ({key}.<key>=...)")
            continue
        rule = rule_of(key)
        if rule is None or key in missing or (value is None and stored and key.startswith("data.")):
            continue
        if not rule.holds(value):
            problems.append(f"{key}={shown(value)} must be {rule.text}")
    return problems


def _contradictions(values: dict, multirun: bool) -> list[str]:
    data, trainer = values.get("data") or {}, values.get("trainer") or {}
    problems = []
    if data and "_target_" not in data and "ckpt" not in values:
        problems.append("data=checkpoint only works where a checkpoint is read (evaluate): choose another data=")
    if data.get("target") == "trimap" and data.get("border") is not None:
        problems.append(
            f"data.border={data['border']} must be null with data.target=trimap, where the border is a class"
        )
    folds, fold = data.get("num_folds"), data.get("fold")
    if folds is not None and fold is not None and fold >= folds:
        problems.append(f"data.fold={fold} must be below data.num_folds={folds}: the first fold is 0")
    weights = (values.get("model") or {}).get("encoder_weights")
    is_path = weights not in (None, "pretrained") and not str(weights).startswith("package:")
    if is_path and values.get("ckpt_path") is None and not Path(str(weights)).is_file():  # a checkpoint has its own
        problems.append(
            f"model.encoder_weights={weights} must be null, pretrained, package:<name>, or a file that is there"
        )
    if trainer.get("accelerator") == "cpu" and trainer.get("devices") == -1:
        problems.append(
            "trainer.devices=-1 means all GPUs and does not go with trainer.accelerator=cpu: give how many processes"
        )
    problems += [*_schedule_free(values), *_find(values)]
    if multirun and _starts_processes(trainer):
        problems.append(
            f"trainer.devices={shown(trainer['devices'])} does not go with -m, as each process would start "
            "the sweep again: run the settings one by one, or with trainer.devices=1"
        )
    return problems


def _schedule_free(values: dict) -> list[str]:
    """What a schedule-free optimizer does itself."""
    if not str((values.get("optimizer") or {}).get("_target_")).startswith("schedulefree."):
        return []
    problems = []
    if (values.get("scheduler") or {}).get("scheduler") is not None:
        problems.append("a schedule-free optimizer has no schedule (optimizer.warmup_steps=...): give scheduler=none")
    if (values.get("callbacks") or {}).get("weight_averaging") is not None:
        problems.append("a schedule-free optimizer averages the weights itself: choose other callbacks=, or optimizer=")
    return problems


def _find(values: dict) -> list[str]:
    find, devices = values.get("find") or {}, (values.get("trainer") or {}).get("devices", 1)
    if not find:
        return []
    problems = []
    if values.get("ckpt_path") is not None:
        problems.append(
            "a resumed training goes on with what was found at its beginning: leave find= out, and give the values of "
            "that run's found.json"
        )
    if devices != 1 and not (isinstance(devices, list) and len(devices) == 1):
        problems.append(
            f"trainer.devices={shown(devices)} does not go with find=: find on one device, and give what it says "
            "to a training on several"
        )
    if {"min_lr", "max_lr"} <= (rates := find.get("lr", {})).keys() and not rates["min_lr"] < rates["max_lr"]:
        problems.append(f"find.lr.min_lr={rates['min_lr']} must be below find.lr.max_lr={rates['max_lr']}")
    return problems


def _starts_processes(trainer: dict) -> bool:
    """Whether Lightning would run this command again for the other devices."""
    devices = trainer.get("devices", 1)
    forks = any(word in str(trainer.get("strategy")) for word in ("spawn", "fork", "notebook"))
    return not forks and devices != 1 and not (isinstance(devices, list) and len(devices) == 1)
