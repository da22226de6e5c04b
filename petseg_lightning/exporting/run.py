"""From a checkpoint to something to hand on."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from petseg_lightning.data.drawing.breeds import BREEDS
from petseg_lightning.data.drawing.picture import draw_picture
from petseg_lightning.data.picture_file import read_image
from petseg_lightning.exporting.card import model_card
from petseg_lightning.inference.bundle import write_bundle
from petseg_lightning.inference.checkpoint import find_model, load_module

ANYWHERE = "data"  # where a bundle says that its data are, in place of the folder of whoever trained it
DRAWN_SIZE = 512  # longer side of the drawn golden picture, before it is squeezed


def export(cfg: DictConfig) -> Path:
    """Write the model of `cfg.ckpt` into the folder `cfg.out`, and check what was written by loading it.

    Args:
        cfg: what conf/export.yaml composes to.

    Returns:
        The folder.

    Raises:
        InputError: no model, a golden picture that cannot be read, a folder that holds something else.
    """
    path, folder, console = find_model(cfg.ckpt), Path(cfg.out), Console()
    module = load_module(path)
    module.description |= {"data": _without_places(module.description["data"])}
    golden = _drawn() if cfg.golden is None else read_image(Path(cfg.golden))
    write_bundle(folder, module, golden, model_card(module, path, folder, cfg.license))
    load_module(folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    console.print(
        f"bundle  {folder}  ({size:.1f} MB, loads and reproduces its golden sample)", soft_wrap=True, highlight=False
    )
    return folder


def _without_places(data: dict[str, Any]) -> dict[str, Any]:
    return {key: ANYWHERE if key == "root" else None if key == "cache_dir" else value for key, value in data.items()}


def _drawn() -> Image.Image:
    picture, _ = draw_picture(np.random.default_rng(0), BREEDS[0], DRAWN_SIZE)
    return Image.fromarray(picture)
