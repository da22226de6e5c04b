"""From a checkpoint to its scores and their report."""

import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig, ListConfig, OmegaConf

from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.compute import Compute, use
from petseg_lightning.config import build, build_all, plain
from petseg_lightning.devices import require_accelerator, usable_precision
from petseg_lightning.evaluation import evaluate, own_protocol
from petseg_lightning.inference.checkpoint import find_model, load_module
from petseg_lightning.inference.description import stored_data
from petseg_lightning.inference.exported import find_export
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.predictor_module import PredictorModule
from petseg_lightning.module import SegmentationModule
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.report.page import write_report
from petseg_lightning.summary import print_summary
from petseg_lightning.training import build_datamodule, write_environment

_PLAIN = {"tta": "none", "tiling": "none", "backend": "auto"}  # the network itself, as in its training

log = logging.getLogger(__name__)


def score_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Score a checkpoint on one split under every protocol, at both resolutions, and leave a folder with a report.

    Args:
        cfg: what conf/evaluate.yaml composes to.

    Returns:
        What metrics.json holds; an empty dict on the devices other than the first.

    Raises:
        InputError: no checkpoint, or one of other classes than the data.
    """
    started, folder = datetime.now(UTC), Path(cfg.paths.output_dir)
    quiet_libraries()
    require_accelerator(cfg.trainer.accelerator)
    paths = [find_model(path) for path in (cfg.ckpt if isinstance(cfg.ckpt, ListConfig) else [cfg.ckpt])]
    options = {key: cfg[key] for key in ("tta", "tiling", "backend")}
    as_predicted = len(paths) > 1 or options != _PLAIN or find_export(paths[0]) is not None
    device: torch.device = build(cfg.trainer, Trainer, precision="32-true", logger=False).strategy.root_device
    module = (
        PredictorModule(Predictor.load(*paths, device=str(device), trust_code=cfg.trust_code, **options))
        if as_predicted
        else SegmentationModule.of(load_module(paths[0]))
    )
    cfg = with_data_of(cfg, module.description)
    datamodule = build_datamodule(cfg)
    own_protocol(module, datamodule)
    callbacks = [*build_all(cfg.callbacks, Callback), EvaluationRecorder()]
    compute = Compute() if as_predicted else _compute_of(cfg, module.description, device)
    use(module, compute, datamodule.batch_size, tf32=cfg.compute.tf32)
    trainer: Trainer = build(
        cfg.trainer, Trainer, precision=compute.precision, callbacks=callbacks, logger=False, default_root_dir=folder
    )
    evaluation = evaluate(trainer, module, datamodule, (cfg.split,), original=True, with_original_images=as_predicted)
    if not trainer.is_global_zero:
        return {}
    about = {"door": "evaluate", "checkpoint": ", ".join(map(str, paths)), **options}
    metrics = evaluation.write(folder, about)
    write_environment(folder, datamodule, asdict(compute), started)
    write_report(folder)
    print_summary(metrics, folder)
    return metrics


def _compute_of(cfg: DictConfig, description: dict[str, Any], device: torch.device) -> Compute:
    """As in the training, so that the scores are the same, unless the config says otherwise; never compiled.

    In fp32 on a device without units for the precision of the training.
    """
    way = asdict(Compute()) | description.get("compute", {})
    way["precision"] = usable_precision(way["precision"], device)
    chosen = {"precision": cfg.trainer.precision, "channels_last": cfg.compute.channels_last}
    way |= {key: value for key, value in chosen.items() if value != "auto"}
    return Compute(**{**way, "compile": False})


def with_data_of(cfg: DictConfig, description: dict[str, Any]) -> DictConfig:
    """The config with the checkpoint's data where none is chosen, and always with the checkpoint's image size."""
    data, image_size = plain(cfg.data), description["preprocessing"]["image_size"]
    if "_target_" not in data:
        data = stored_data(description, data)
    elif data["image_size"] != image_size:
        log.info("Pictures are resized to the checkpoint's %d pixels, not to %d", image_size, data["image_size"])
    return OmegaConf.create({**cfg, "data": {**data, "image_size": image_size}})
