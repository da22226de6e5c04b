"""The pictures on which settings disagree, predicted again from their checkpoints."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from petseg_lightning.comparing.runs import Setting
from petseg_lightning.config import build
from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.dataset import SegmentationDataset
from petseg_lightning.errors import InputError
from petseg_lightning.files import replacing
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.inference.description import stored_data
from petseg_lightning.pictures import class_colours, overlay
from petseg_lightning.report.run_folder import RunFolder
from petseg_lightning.run_pictures import predict_item
from petseg_lightning.segmenter import Segmenter


def write_pictures(folder: Path, rows: Mapping[str, Iterable[int]], settings: Mapping[str, Setting]) -> None:
    """Write `<row>_image.jpg`, `<row>_truth.png` and `<row>_<key>.png`, the prediction of the setting's first run.

    Nothing is downloaded or drawn: the data must be where the training found them.

    Args:
        folder: is made.
        rows: the test pictures, by row of per_image.csv, that each setting is to predict.
        settings: by the same keys.

    Raises:
        InputError, OSError: a checkpoint or the data are gone or changed.
        RuntimeError: a checkpoint that the present code does not fit.
    """
    dataset: SegmentationDataset | None = None
    for key, setting in settings.items():
        run = setting.runs[0].folder
        module = load_module(run.path)
        if dataset is None:
            dataset = _test_pictures(module, run)
        colours = list(class_colours(module.target.class_names).values())
        for row in rows[key]:
            item = dataset[row]
            truth, prediction = predict_item(module, item)
            _save(folder / f"{row:05d}_image.jpg", item["image"])
            _save(folder / f"{row:05d}_truth.png", overlay(item["image"], truth, colours))
            _save(folder / f"{row:05d}_{key}.png", overlay(item["image"], prediction, colours))


def _test_pictures(module: Segmenter, run: RunFolder) -> SegmentationDataset:
    """The test split that a checkpoint names, read picture by picture; nothing is drawn, downloaded or written."""
    root = module.description["data"]["root"]
    if "://" not in root and not Path(root).is_dir():
        raise InputError(f"the data are no longer in {root}")
    data = stored_data(module.description, {"cache": "none"})
    datamodule: SegmentationDataModule = build(data, transforms=[], seed=0)
    if datamodule.description()["fingerprint"] != run.environment.get("data", {}).get("fingerprint"):
        raise InputError(f"the data in {data['root']} are not those of the runs any more")
    pictures = datamodule.pictures("test")
    if len(pictures) != len(run.per_image):
        raise InputError(f"the data in {data['root']} have another number of test pictures than the runs")
    return SegmentationDataset(pictures)


def _save(path: Path, picture: np.ndarray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, quality=92)
