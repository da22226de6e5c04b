"""From a config to a trained model and its run folder."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from petseg_lightning import __version__
from petseg_lightning.callbacks.divergence import Divergence
from petseg_lightning.callbacks.recorder import EvaluationRecorder
from petseg_lightning.callbacks.replay import Replay
from petseg_lightning.callbacks.step_seed import StepSeed
from petseg_lightning.callbacks.temperature import TemperatureScaling
from petseg_lightning.callbacks.throughput import Throughput
from petseg_lightning.compute import Compute, choose, use
from petseg_lightning.config import build, build_all, given, overrides, plain, settings_of
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.strength import at_strength
from petseg_lightning.devices import require_accelerator
from petseg_lightning.environment import describe_environment
from petseg_lightning.errors import DivergedError, InputError, StoppedError
from petseg_lightning.failures import FULL
from petseg_lightning.files import remove_unfinished, replacing, write_json, write_text
from petseg_lightning.inference.checkpoint import add_to_description, build_network, read_checkpoint
from petseg_lightning.interruption import stoppable
from petseg_lightning.module import SegmentationModule
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.resume_command import OVERRIDES
from petseg_lightning.resuming import SETTINGS, Curves, Settings, has_ended, newest_checkpoint, require_same
from petseg_lightning.segmenter import CHECKPOINT_KEY
from petseg_lightning.summary import print_summary
from petseg_lightning.trainer import LAST, Trainer

log = logging.getLogger(__name__)

HYPERPARAMETERS = ("data.batch_size", "model.base_channels", "optimizer.lr", "seed", "trainer.max_epochs")
NOT_HYPERPARAMETERS = ("paths", "data.root", "data.num_", "ckpt_path", "resume", "debug", "trainer.devices")

DATA_FILES = "data.json"  # digests of the pictures and masks that a training saw, by split and name
RESULTS = ("metrics.json", "environment.json")  # of the test, in the order in which they are written


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, test the best checkpoint on every split, and leave a run folder with its report.

    Args:
        cfg: what conf/train.yaml composes to.

    Returns:
        What metrics.json holds; an empty dict on the devices other than the first.

    Raises:
        InputError: data, checkpoint or values that cannot be used.
    """
    with stoppable():
        try:
            return _train(cfg)
        except StoppedError as error:
            error.hint = f"petseg train resume={cfg.paths.output_dir} goes on"
            raise
        except OSError as error:
            if error.errno in FULL and error.filename is None:  # of a library that does not say where
                error.filename = cfg.paths.output_dir
            raise


def _train(cfg: DictConfig) -> dict[str, Any]:
    started, folder = datetime.now(UTC), Path(cfg.paths.output_dir)
    quiet_libraries()
    require_accelerator(cfg.trainer.accelerator)
    path, checkpoint = _checkpoint(cfg)
    step, ended, found = 0, False, {}
    if checkpoint is not None:
        step, ended = checkpoint["global_step"], has_ended(checkpoint, cfg.trainer.max_epochs)
        found = checkpoint[SETTINGS]["found"]  # at the beginning of the training, which goes on with it
        for key, value in found.items():
            OmegaConf.update(cfg, key, value)
    seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule, pretrained=checkpoint is None)
    datamodule.setup("fit")  # a damaged picture is met before anything is written
    if checkpoint is None:
        found = find_values(cfg, module, datamodule)
    settings = Settings(cfg, found, datamodule.description()["fingerprint"])
    if path is not None and checkpoint is not None:
        require_same(path, checkpoint, settings)
        if ended and cfg.resume is None:
            raise InputError(
                f"{path} has been trained for {cfg.trainer.max_epochs} epochs or more; "
                "to go on, set trainer.max_epochs to more"
            )
    compute = choose_compute(cfg, module, datamodule, checkpoint)
    throughput = Throughput()
    own = [StepSeed(cfg.seed), Divergence(datamodule.training_names), throughput, settings]
    own += [Replay(folder), TemperatureScaling(), EvaluationRecorder()]
    loggers = build_loggers(cfg, step)
    trainer: Trainer = build(
        cfg.trainer,
        Trainer,
        precision=compute.precision,
        callbacks=[*build_all(cfg.callbacks, Callback), *own],
        logger=loggers,
        default_root_dir=folder,
    )
    if trainer.is_global_zero:
        _make_ready(cfg, folder, path, ended)
        Curves(folder, step).give_to(loggers)
    status = "failed"
    try:
        diverged = _fit(trainer, module, datamodule, path, settings)
        if ended and all((folder / name).is_file() for name in RESULTS):
            from petseg_lightning.report.run_folder import read_metrics

            metrics = read_metrics(folder)
        else:
            about: dict[str, Any] = {"found": found} if found else {}
            if diverged is not None:
                about["diverged"] = str(diverged)
            metrics = _test(cfg, trainer, module, datamodule, throughput, about)
            if trainer.is_global_zero:
                _log_results(loggers, cfg, metrics, trainer.global_step)
                write_text(folder / DATA_FILES, json.dumps(datamodule.file_digests(), indent=0) + "\n")
                write_environment(folder, datamodule, asdict(compute), started)
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
    if not trainer.is_global_zero:
        return {}
    from petseg_lightning.report.page import write_report

    write_report(folder)
    print_summary(metrics, folder)
    if diverged is not None:
        raise diverged
    return metrics


def _checkpoint(cfg: DictConfig) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
    """What the training goes on from, if anything, and its content."""
    if cfg.ckpt_path is not None:
        place = Path(cfg.ckpt_path)
        found = newest_checkpoint(place)
        if found is None:
            raise InputError(f"no checkpoint at {place.absolute()}; give a .ckpt file or the folder of a training run")
        return found
    try:
        return (newest_checkpoint(Path(cfg.resume)) if cfg.resume is not None else None) or (None, None)
    except InputError as error:
        log.warning("%s; the training begins anew", error)
        return None, None


def _make_ready(cfg: DictConfig, folder: Path, path: Path | None, ended: bool) -> None:
    """Leave in a run folder what the training that goes on in it needs, and nothing that it makes untrue."""
    remove_unfinished(folder)
    if cfg.resume is not None and overrides():
        write_text(folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(overrides())))
        write_text(folder / OVERRIDES.with_name("config.yaml"), OmegaConf.to_yaml(cfg))
    if cfg.resume is None and path is not None and (best := path.with_name("best.ckpt")).is_file():
        with replacing(folder / "checkpoints" / best.name) as temporary:
            shutil.copyfile(best, temporary)
    for name in () if ended else RESULTS:
        (folder / name).unlink(missing_ok=True)  # of fewer epochs


def _fit(
    trainer: Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    path: Path | None,
    settings: Settings,
) -> DivergedError | None:
    """Train, from the checkpoint at `path` if there is one. Returns the error of a training that diverged."""
    try:
        trainer.fit(module, datamodule, ckpt_path=path, weights_only=True)
    except DivergedError as error:
        return error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if path is None or settings.restored or isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not what a training can go on from ({error}); give another one") from error
    return None


def _test(
    cfg: DictConfig,
    trainer: Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    throughput: Throughput,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Test the best checkpoint, or the last one where none was validated, on every split, and write what that gives.

    `about` is written with it. Returns an empty dict but on the first device.
    """
    from petseg_lightning.evaluation import evaluate  # with pandas, which no first step waits for

    folder, best = Path(cfg.paths.output_dir), _best_path(trainer)
    # the test loads the state that all callbacks had in the best checkpoint
    speed = {"train_seconds": round(throughput.seconds, 1), "images_per_second": throughput.median}
    path = None if cfg.trainer.fast_dev_run else str(best or folder / "checkpoints" / LAST)
    evaluation = evaluate(trainer, module, datamodule, ("test", "train", "val"), ckpt_path=path, confident=("val",))
    if not trainer.is_global_zero:
        return {}
    metrics = evaluation.write(
        folder,
        {
            "door": "train",
            "epochs": trainer.current_epoch,
            "best_epoch": _best_epoch(trainer),
            "parameters": sum(p.numel() for p in module.network.parameters()),
            **speed,
            **about,
        },
    )
    if best is not None and (forecast := evaluation.forecast("val")):
        add_to_description(best, {"forecast": forecast})
    return metrics


def build_loggers(cfg: DictConfig, step: int) -> list[Logger]:
    """The loggers of a config; TensorBoard forgets what an interrupted training logged from this step on."""

    def extra(node: DictConfig) -> dict[str, Any]:
        return {"purge_step": step} if step and str(node._target_).endswith(".TensorBoardLogger") else {}

    return [build(node, Logger, **extra(node)) for node in cfg.logger.values() if node is not None]


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


def build_module(cfg: DictConfig, datamodule: SegmentationDataModule, *, pretrained: bool = True) -> SegmentationModule:
    """The untrained model of a config for the classes of the data; not `pretrained` where a checkpoint is loaded."""
    target = datamodule.target
    given_model, data = plain(cfg.model), plain(cfg.data)
    model = {key: value for key, value in given_model.items() if key != "encoder_weights"}  # a checkpoint has its own
    num_classes = len(target.class_names)
    loss = build(_with_measured_weights(plain(cfg.loss), datamodule), torch.nn.Module)
    with settings_of("loss"):  # it can tell the classes' number
        loss(torch.zeros(1, num_classes, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    with settings_of("model"):
        network = build_network(given_model if pretrained else model, num_classes)
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
    cfg: DictConfig,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    resumed: Mapping[str, Any] | None = None,
) -> Compute:
    """Choose how the module is computed, prepare it for that, and note it in its description.

    A resumed training goes on as it began, unless the config says otherwise.
    """
    wanted = {**plain(cfg.compute), "precision": cfg.trainer.precision}
    if resumed is not None:
        before = resumed[CHECKPOINT_KEY].get("compute", {})
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
