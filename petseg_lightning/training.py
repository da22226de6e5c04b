"""From a config to a trained model and its run folder."""

import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from petseg_lightning import __version__
from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.callbacks.temperature import TemperatureScaling
from petseg_lightning.callbacks.throughput import Throughput
from petseg_lightning.compute import Compute, choose, use
from petseg_lightning.conf_tree import flatten, shown
from petseg_lightning.config import build, build_all, given, plain, settings_of
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.strength import at_strength
from petseg_lightning.devices import require_accelerator
from petseg_lightning.environment import describe_environment
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json
from petseg_lightning.inference.checkpoint import add_to_description, build_network, find_checkpoint, read_checkpoint
from petseg_lightning.module import SegmentationModule
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.segmenter import CHECKPOINT_KEY
from petseg_lightning.summary import print_summary

log = logging.getLogger(__name__)

HYPERPARAMETERS = ("data.batch_size", "model.base_channels", "optimizer.lr", "seed", "trainer.max_epochs")
NOT_HYPERPARAMETERS = ("paths", "data.root", "data.num_", "ckpt_path", "debug", "trainer.devices")


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, test the best checkpoint on every split, and leave a run folder with its report.

    Args:
        cfg: what conf/train.yaml composes to.

    Returns:
        What metrics.json holds; an empty dict on the devices other than the first.

    Raises:
        InputError: data, checkpoint or values that cannot be used.
    """
    started, folder = datetime.now(UTC), Path(cfg.paths.output_dir)
    resume = None if cfg.ckpt_path is None else find_checkpoint(cfg.ckpt_path, "last.ckpt")
    quiet_libraries()
    require_accelerator(cfg.trainer.accelerator)
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    if resume is not None:
        _check_resume(resume, module, cfg)
    datamodule.setup("fit")  # a damaged picture is met before anything is written
    throughput = Throughput()
    callbacks = [*build_all(cfg.callbacks, Callback), throughput, TemperatureScaling(), EvaluationRecorder()]
    found = find_values(cfg, module, datamodule)
    compute = choose_compute(cfg, module, datamodule, resume)
    loggers: list[Logger] = build_all(cfg.logger, Logger)
    trainer: Trainer = build(
        cfg.trainer, Trainer, precision=compute.precision, callbacks=callbacks, logger=loggers, default_root_dir=folder
    )
    status = "failed"
    try:
        begin = perf_counter()
        trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
        train_seconds = perf_counter() - begin
        from petseg_lightning.evaluation import evaluate  # with pandas, which no first step waits for
        from petseg_lightning.report.page import write_report

        best = None if cfg.trainer.fast_dev_run else "best"
        evaluation = evaluate(trainer, module, datamodule, ("test", "train", "val"), ckpt_path=best, confident=("val",))
        if not trainer.is_global_zero:
            return {}
        metrics = evaluation.write(
            folder,
            {
                "door": "train",
                "epochs": trainer.current_epoch,
                "best_epoch": _best_epoch(trainer),
                "parameters": sum(p.numel() for p in module.network.parameters()),
                "train_seconds": round(train_seconds, 1),
                "images_per_second": throughput.median,
                **({"found": found} if found else {}),
            },
        )
        if (path := _best_path(trainer)) and (forecast := evaluation.forecast("val")):
            add_to_description(path, {"forecast": forecast})
        write_environment(folder, datamodule, asdict(compute), started)
        _log_results(loggers, cfg, metrics, trainer.global_step)
        status = "success"
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        there = (folder / "checkpoints" / "last.ckpt").is_file()
        hint = f"the same command with ckpt_path={folder} goes on from its last epoch" if there else ""
        raise KeyboardInterrupt(hint) from error
    finally:
        for logger in loggers:
            logger.finalize(status)
    write_report(folder)
    print_summary(metrics, folder)
    return metrics


def build_datamodule(cfg: DictConfig) -> SegmentationDataModule:
    """The data of a config, present and checked, with its counts logged."""
    transforms = build_transforms(cfg.augmentation) if "augmentation" in cfg else []
    datamodule: SegmentationDataModule = build(
        cfg.data, SegmentationDataModule, transforms=transforms, seed=cfg.get("seed", 0)
    )
    datamodule.prepare_data()
    counts = ", ".join(f"{count:,} {split}" for split, count in datamodule.counts.items())
    log.info("Pictures: %s", counts)
    return datamodule


def build_transforms(augmentation: DictConfig) -> list[Any]:
    """The transforms of a config at its strength."""
    with settings_of("augmentation"):
        nodes = at_strength(**plain(augmentation))
    return build(OmegaConf.create({"augmentation": {"transforms": nodes}}).augmentation.transforms)


def build_module(cfg: DictConfig, datamodule: SegmentationDataModule) -> SegmentationModule:
    """The untrained model of a config for the classes of the data."""
    target = datamodule.target
    given_model, data = plain(cfg.model), plain(cfg.data)
    model = {key: value for key, value in given_model.items() if key != "encoder_weights"}  # a checkpoint has its own
    num_classes = len(target.class_names)
    loss = build(_with_measured_weights(plain(cfg.loss), datamodule), torch.nn.Module)
    with settings_of("loss"):  # it can tell the classes' number
        loss(torch.zeros(1, num_classes, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    with settings_of("model"):
        network = build_network(given_model if cfg.get("ckpt_path") is None else model, num_classes)
    module = SegmentationModule(
        network,
        loss,
        target,
        **build(cfg.preprocessing),
        **build(cfg.scheduler),
        optimizer=build_optimizer(cfg),
        mixing=build(cfg.mixing, Callable, seed=cfg.seed) if cfg.mixing else None,
        description={
            "version": __version__,
            "model": model,
            "target": {key: list(v) if isinstance(v, tuple) else v for key, v in vars(target).items()},
            "preprocessing": {**build(cfg.preprocessing), "image_size": datamodule.image_size},
            "data": {**data, "root": datamodule.location},
        },
    )
    with settings_of("optimizer"):
        module.try_optimizer()
    size = datamodule.image_size
    module.example_input_array = torch.zeros(1, 3, size, size, dtype=torch.uint8)  # for the summary's sizes and FLOPs
    return module


def build_optimizer(cfg: DictConfig, **values: Any) -> Any:
    """What makes the optimizer of a config from parameters.

    Where gradients are clipped, it is not fused: Lightning clips none of a fused optimizer in mixed precision.
    """
    if cfg.trainer.gradient_clip_val is not None and "fused" in cfg.optimizer:
        values["fused"] = False
    return build(cfg.optimizer, Callable, **values)


def _with_measured_weights(loss: dict[str, Any], datamodule: SegmentationDataModule) -> dict[str, Any]:
    """The config of a loss, or of terms of one, with numbers for `class_weights: measured`."""
    filled = {k: _with_measured_weights(v, datamodule) if isinstance(v, dict) else v for k, v in loss.items()}
    if filled.get("class_weights") == "measured":
        filled["class_weights"] = datamodule.class_weights()
    return filled


def find_values(cfg: DictConfig, module: SegmentationModule, datamodule: SegmentationDataModule) -> dict[str, Any]:
    """What `cfg.find` asks for, measured, by key; config, module and data then have it, and found.json in the folder.

    Raises:
        InputError: nothing can be found.
    """
    found: dict[str, Any] = {}
    finders, folder = build(cfg.find), Path(cfg.paths.output_dir)
    if not finders:
        return found
    precision = "32-true" if cfg.trainer.precision == "auto" else cfg.trainer.precision
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    fixed: dict[str, Any] = {**silent, "enable_model_summary": False, "profiler": None, "fast_dev_run": False}
    trainer = partial(build, cfg.trainer, precision=precision, limit_val_batches=0, max_epochs=-1, **fixed)
    if "batch_size" in finders:
        device, pictures = trainer().strategy.root_device, datamodule.counts["train"]
        size = finders["batch_size"].find(module, datamodule.image_size, pictures, device)
        found["data.batch_size"] = datamodule.batch_size = module.description["data"]["batch_size"] = size
    if "lr" in finders:
        optimizer = partial(build_optimizer, cfg)
        found["optimizer.lr"] = rate = finders["lr"].find(module, datamodule, optimizer, trainer, folder)
        module.build_optimizer = optimizer(lr=rate)
    for key, value in found.items():
        OmegaConf.update(cfg, key, value)
    log.info("Found %s: the training uses it", " ".join(f"{key}={value}" for key, value in found.items()))
    write_json(folder / "found.json", found)
    return found


def choose_compute(
    cfg: DictConfig, module: SegmentationModule, datamodule: SegmentationDataModule, resume: Path | None = None
) -> Compute:
    """Choose how the module is computed, prepare it for that, and note it in its description.

    A resumed training goes on as it began, unless the config says otherwise.
    """
    wanted = {**plain(cfg.compute), "precision": cfg.trainer.precision}
    if resume is not None:
        before = read_checkpoint(resume)[CHECKPOINT_KEY].get("compute", {})
        wanted |= {key: value for key, value in before.items() if wanted[key] == "auto"}
    probe: Trainer = build(cfg.trainer, Trainer, precision="32-true", logger=False, enable_checkpointing=False)
    compute = choose(wanted, probe.strategy.root_device)
    use(module, compute, datamodule.batch_size, tf32=cfg.compute.tf32)
    module.description["compute"] = asdict(compute)
    return compute


def write_environment(
    folder: Path, datamodule: SegmentationDataModule, compute: dict[str, Any], started: datetime
) -> None:
    """Write environment.json: versions, commit, hardware, compute, data, command and times of a run that ends now."""
    content = {
        **describe_environment(),
        "compute": compute,
        "data": datamodule.description(),
        "command": sys.argv,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "environment.json", content)


def _check_resume(path: Path, module: SegmentationModule, cfg: DictConfig) -> None:
    checkpoint, max_epochs = read_checkpoint(path), cfg.trainer.max_epochs
    pairs = {key: (checkpoint[CHECKPOINT_KEY][key], module.description[key]) for key in ("model", "target")}
    config = path.absolute().parent.parent / ".hydra" / "config.yaml"
    if config.is_file() and "optimizer" in (before := OmegaConf.load(config)):
        pairs["optimizer"] = (before.optimizer, cfg.optimizer)  # a resumed training has those of its checkpoint
    for part, values in pairs.items():
        was, now = (flatten({part: OmegaConf.to_container(OmegaConf.create(value))}) for value in values)
        if changed := [key for key in was | now if was.get(key) != now.get(key) and key != part]:
            each = (f"{key}: {shown(was.get(key))} there, {shown(now.get(key))} here" for key in changed[:3])
            raise InputError(f"{path} is of another training ({'; '.join(each)}): resume with the settings of that run")
    if checkpoint["epoch"] + 1 >= max_epochs:
        raise InputError(
            f"{path} has been trained for {checkpoint['epoch'] + 1} epochs and trainer.max_epochs={max_epochs}; "
            "to go on, set trainer.max_epochs to more"
        )


def _best_path(trainer: Trainer) -> Path | None:
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return Path(path) if path else None


def _best_epoch(trainer: Trainer) -> int | None:
    path = _best_path(trainer)
    return None if path is None else int(read_checkpoint(path)["epoch"])


def _log_results(loggers: list[Logger], cfg: DictConfig, metrics: dict[str, Any], step: int) -> None:
    """The final scores, in TensorBoard beside the hyper-parameters, so that runs can be compared there."""
    final = {split: result["protocols"][metrics["headline"]] for split, result in metrics["splits"].items()}
    values = {f"test/{name}": final["test"][name] for name in ("accuracy", "miou", "mean_dice", "mean_image_miou")}
    values |= {f"test/iou_{name}": iou for name, iou in final["test"]["iou"].items()}
    values |= {f"test/boundary_{k}": metrics["splits"]["test"]["boundary"][f"mean_{k}"] for k in ("f_score", "iou")}
    values |= {
        f"final/{split}_{name}": final[split][name] for split in ("train", "val") for name in ("accuracy", "miou")
    }
    values = {key: value for key, value in values.items() if value is not None}
    chosen = {key: value for key, value in given().items() if not key.startswith(NOT_HYPERPARAMETERS)}
    hparams = {**{key: OmegaConf.select(cfg, key) for key in HYPERPARAMETERS}, **chosen}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(hparams, values, step)
        else:
            logger.log_hyperparams(hparams)
            logger.log_metrics(values, step)
