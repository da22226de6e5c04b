"""The pictures that a run folder keeps for its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from petseg_lightning.data.dataset import Item, SegmentationDataset, collate
from petseg_lightning.files import replacing, write_json
from petseg_lightning.pictures import class_colours, overlay
from petseg_lightning.segmenter import Segmenter

if TYPE_CHECKING:
    import pandas as pd

NUM_GRID, NUM_WORST = 12, 12


def predict_item(module: Segmenter, item: Item) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of a data set's item, uint8 (H,W) each; 255 is ignored in the truth."""
    with torch.inference_mode():
        prediction = module(collate([item])["image"].to(module.mean.device)).argmax(1)[0]
    return module.class_of_part.byte().cpu().numpy()[item["parts"]], prediction.byte().cpu().numpy()


def write_pictures(
    folder: Path, module: Segmenter, dataset: SegmentationDataset, indices: np.ndarray, per_image: "pd.DataFrame"
) -> None:
    """Write picture, truth and prediction of images spread over the split, and of the worst ones.

    Args:
        folder: for the files and pictures.json, which lists them.
        module: the model, in evaluation mode.
        dataset: the split.
        indices: int64 (N,), the data set's index of each row of `per_image`.
        per_image: the table of the split, N rows.
    """
    spread = np.linspace(0, len(per_image) - 1, min(NUM_GRID, len(per_image))).round().astype(int)
    worst = per_image["miou"].sort_values(kind="stable").index[:NUM_WORST]
    colours = list(class_colours(module.target.class_names).values())
    described = per_image[["name", "miou", "accuracy"]].astype(object).where(per_image.notna(), None)
    entries = []
    for row, role in [*((row, "grid") for row in spread), *((row, "worst") for row in worst)]:
        item = dataset[int(indices[row])]
        truth, prediction = predict_item(module, item)
        entry: dict[str, Any] = {**described.loc[row], "role": role}
        for kind, picture in (
            ("image", item["image"]),
            ("truth", overlay(item["image"], truth, colours)),
            ("prediction", overlay(item["image"], prediction, colours)),
        ):
            entry[kind] = f"{row:05d}_{kind}.{'jpg' if kind == 'image' else 'png'}"
            with replacing(folder / entry[kind]) as path:
                Image.fromarray(picture).save(path, quality=92)
        entries.append(entry)
    write_json(folder / "pictures.json", entries)
