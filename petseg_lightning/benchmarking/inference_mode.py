"""Validation and test beside the bare forward pass."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from omegaconf import DictConfig

from petseg_lightning.benchmarking.rates import in_turn, median, ratios
from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.callbacks.temperature import TemperatureScaling
from petseg_lightning.config import build
from petseg_lightning.devices import AUTOCAST
from petseg_lightning.training import build_datamodule, build_module, choose_compute


def measure_inference(cfg: DictConfig) -> dict[str, Any]:
    """Images per second over the test split, in turn: `forward` (uint8 on the device to logits), `validate`, `test`."""
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    compute = choose_compute(cfg, module, datamodule)
    trainer: Trainer = build(
        cfg.trainer,
        precision=compute.precision,
        callbacks=[TemperatureScaling(), EvaluationRecorder(measure=False)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=Path(cfg.paths.output_dir),
    )
    device, dtype = trainer.strategy.root_device, AUTOCAST.get(compute.precision)
    loader = datamodule.evaluation_dataloader("test")

    model = deepcopy(module).eval().to(device)  # Lightning takes its own back to the CPU
    batches = [batch["image"].to(device) for batch in loader]

    def forward() -> int:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            for images in batches:
                model(images)
        return len(datamodule.splits["test"])

    def validate() -> int:
        trainer.validate(module, loader, verbose=False)
        return len(datamodule.splits["test"])

    def test() -> int:
        trainer.test(module, loader, verbose=False)
        return len(datamodule.splits["test"])

    rates = in_turn({"forward": forward, "validate": validate, "test": test}, cfg.rounds, device)
    costs = {f"{name}_cost": median(ratios(rates, "forward", name)) for name in ("validate", "test")}
    return {"rates": rates, **costs}
