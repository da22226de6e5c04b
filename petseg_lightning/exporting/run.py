"""From a checkpoint to something to hand on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.drawing.picture import sample_picture
from petseg_lightning.data.picture_file import read_image
from petseg_lightning.errors import InputError
from petseg_lightning.exporting.agreement import compare, mean_iou
from petseg_lightning.exporting.card import model_card
from petseg_lightning.files import replacing_folder, write_text
from petseg_lightning.inference.bundle import CARD, is_bundle, write_bundle
from petseg_lightning.inference.checkpoint import find_model, load_module
from petseg_lightning.inference.exported import FILES, find_export, runtime
from petseg_lightning.quiet import quiet_libraries
from petseg_lightning.scoring import with_data_of
from petseg_lightning.segmenter import Segmenter
from petseg_lightning.training import build_datamodule

ANYWHERE = "data"  # where an export says that its data are, in place of the folder of whoever trained it
COMPARED = 8  # pictures on which an export is compared with its model
CALIBRATED = 128  # validation pictures, at most, from which int8 takes its ranges
SAME_CLASS = 0.999  # share of the pixels that must have the same class in fp32
MIOU_LOSS = 0.01  # of mean IoU on the validation split that fp16 and int8 may cost


def export(cfg: DictConfig) -> Path:
    """Write the model of `cfg.ckpt` into the folder `cfg.out`; nothing is left of an export that fails its check.

    Args:
        cfg: what conf/export.yaml composes to.

    Returns:
        The folder.

    Raises:
        InputError: no model, no data where they are needed, a folder that holds something else, an export that
            does not say what the model says.
    """
    path, folder = find_model(cfg.ckpt), Path(cfg.out)
    precisions = ("fp32",) if cfg.format == "bundle" else runtime(cfg.format).PRECISIONS
    if cfg.precision not in precisions:
        raise InputError(f"format={cfg.format} has no precision={cfg.precision}; give {' or '.join(precisions)}")
    module = load_module(path)
    trained_on = module.description["data"]
    module.description |= {"data": _without_places(trained_on)}
    card = model_card(module, path, folder, cfg.license, cfg.format, cfg.precision)
    if cfg.format == "bundle":
        golden = sample_picture(0) if cfg.golden is None else read_image(Path(cfg.golden))
        write_bundle(folder, module, golden, card)
        load_module(folder)
        checked = "loads and reproduces its golden sample"
    else:
        checked = _write_graph(folder, module, card, cfg, trained_on)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    Console().print(f"{cfg.format}  {folder}  ({size:.1f} MB, {checked})", soft_wrap=True, highlight=False)
    return folder


def _write_graph(folder: Path, module: Segmenter, card: str, cfg: DictConfig, data: dict[str, Any]) -> str:
    """Write an ONNX, OpenVINO or torch.export folder; what its check found, in words."""
    backend, file, precision = runtime(cfg.format), FILES[cfg.format], cfg.precision
    if folder.exists() and any(folder.iterdir()) and not (is_bundle(folder) or find_export(folder)):
        raise InputError(f"{folder} exists and is no exported model; give another out=")
    quiet_libraries()
    datamodule = _data(cfg, module.description | {"data": data})
    with replacing_folder(folder) as partial:
        calibration = _pictures(datamodule, CALIBRATED) if precision == "int8" else []
        backend.save(module, partial / file, precision, [picture.transpose(2, 0, 1)[None] for picture in calibration])
        forward, _ = backend.load(partial / file, torch.device("cpu"))
        agreement = compare(forward, module, _pictures(datamodule, COMPARED))
        words = (
            f"{agreement.same_class:.3%} of the pixels have the same class, logits differ by {agreement.difference:.2g}"
        )
        if datamodule is None:
            words += ", on drawn pictures"
        elif precision != "fp32":
            with torch.inference_mode():
                before, after = (mean_iou(one, module, datamodule) for one in (module, forward))
            words += f", mean IoU on val {before:.4f} before, {after:.4f} after"
            _require(abs(after - before) <= MIOU_LOSS, words)
        _require(precision != "fp32" or agreement.same_class >= SAME_CLASS, words)
        write_text(partial / CARD, card)
    return words


def _data(cfg: DictConfig, description: dict[str, Any]) -> SegmentationDataModule | None:
    """The data of the model, where they are there already."""
    try:
        cfg = with_data_of(cfg, description)
        if "download" in cfg.data:
            cfg = OmegaConf.create({**cfg, "data": {**cfg.data, "download": False}})
        root = str(cfg.data.root)
        if "://" not in root and not Path(root).is_dir():
            raise InputError(f"{root} is not there")
        return build_datamodule(cfg)
    except InputError as error:
        if cfg.precision == "fp32":
            return None
        raise InputError(
            f"precision={cfg.precision} is scored on validation pictures, and {error}; give data.root=, or "
            "precision=fp32"
        ) from error


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise InputError(
            f"the export does not say what the model says ({words}) and was not kept; "
            "choose another precision= or format="
        )


def _pictures(datamodule: SegmentationDataModule | None, number: int) -> list[np.ndarray]:
    """Pictures, uint8 (S,S,3), evenly from the validation split; drawn ones where there is none."""
    if datamodule is None:
        return drawn_pictures(number)
    pictures = datamodule.pictures("val")
    return [pictures[i][0] for i in np.unique(np.linspace(0, len(pictures) - 1, number).astype(int))]


def drawn_pictures(number: int, size: int | None = None) -> list[np.ndarray]:
    """Drawn pets, uint8 (H,W,3), of their own sizes or (size,size,3)."""
    pictures = (sample_picture(seed) for seed in range(number))
    return [np.asarray(one if size is None else one.resize((size, size))) for one in pictures]


def _without_places(data: dict[str, Any]) -> dict[str, Any]:
    return {key: ANYWHERE if key == "root" else None if key == "cache_dir" else value for key, value in data.items()}
