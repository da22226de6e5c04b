"""The modes of the benchmark, and what it leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from omegaconf import DictConfig, ListConfig

from petseg_lightning.benchmarking.backends_mode import measure_backends
from petseg_lightning.benchmarking.data_mode import measure_data
from petseg_lightning.benchmarking.inference_mode import measure_inference
from petseg_lightning.benchmarking.show import print_backends, print_tables, write_picture
from petseg_lightning.benchmarking.startup_mode import measure_startup
from petseg_lightning.benchmarking.train_mode import measure_training
from petseg_lightning.devices import require_accelerator
from petseg_lightning.environment import describe_environment
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json
from petseg_lightning.quiet import quiet_libraries

MODES: dict[str, Callable[[DictConfig], dict[str, Any] | None]] = {
    "startup": measure_startup,
    "data": measure_data,
    "train": measure_training,
    "inference": measure_inference,
}


def benchmark(cfg: DictConfig) -> dict[str, Any]:
    """Measure what `cfg.mode` says, print tables, and leave benchmark.json and benchmark.png in the run folder.

    Returns:
        What benchmark.json holds; an empty dict on the devices other than the first.

    Raises:
        InputError: several devices in another mode than train.
    """
    if cfg.ckpt is not None:
        return _benchmark_backends(cfg)
    devices = cfg.trainer.devices
    if cfg.mode != "train" and devices != 1 and not (isinstance(devices, ListConfig) and len(devices) == 1):
        raise InputError(
            f"mode={cfg.mode} trainer.devices={devices} measures one device: several are measured with mode=train, "
            "or choose trainer.devices=1"
        )
    quiet_libraries()
    require_accelerator(cfg.trainer.accelerator)
    seed_everything(cfg.seed, verbose=False)
    results: dict[str, Any] = {}
    for mode in MODES if cfg.mode == "all" else (cfg.mode,):
        result = MODES[mode](cfg)
        if result is None:
            return {}
        results[mode] = result
    folder = Path(cfg.paths.output_dir)
    results = {
        "model": str(cfg.model["_target_"]).rpartition(".")[2],
        "image_size": cfg.data.image_size,
        "batch_size": cfg.data.batch_size,
        "threads": torch.get_num_threads(),
        **results,
        "environment": describe_environment(),
    }
    write_json(folder / "benchmark.json", results)
    write_picture(folder / "benchmark.png", results)
    print_tables(results, folder)
    return results


def _benchmark_backends(cfg: DictConfig) -> dict[str, Any]:
    """The backends of a trained model, into benchmark.json."""
    if cfg.mode != "inference":
        raise InputError(
            f"ckpt= is measured with mode=inference, not with mode={cfg.mode}; give that, or leave ckpt= out"
        )
    quiet_libraries()
    folder = Path(cfg.paths.output_dir)
    results = {**measure_backends(cfg), "environment": describe_environment()}
    write_json(folder / "benchmark.json", results)
    print_backends(results, folder)
    return results
