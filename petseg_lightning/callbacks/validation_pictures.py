"""What the model sees, at every validation, in TensorBoard."""

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.data.dataset import SegmentationDataset
from petseg_lightning.module import SegmentationModule
from petseg_lightning.pictures import class_colours, confusion_figure, errors, overlay, panel
from petseg_lightning.run_pictures import predict_item


class ValidationPictures(Callback):
    """Logs a panel of the same pictures, spread over the validation split, and the confusion matrix.

    Each row is picture, truth, prediction and error.
    """

    def __init__(self, num_pictures: int = 8) -> None:
        self.num_pictures = num_pictures

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers:
            return
        assert isinstance(pl_module, SegmentationModule)
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, SegmentationDataModule)
        sheet = np.asarray(self._panel(pl_module, SegmentationDataset(datamodule.pictures("val"))))
        figure = confusion_figure(pl_module.validation_matrix.numpy(), pl_module.target.class_names)
        for logger in loggers:
            logger.experiment.add_image("val/pictures", sheet, trainer.global_step, dataformats="HWC")
            logger.experiment.add_figure("val/confusion_matrix", figure, trainer.global_step)

    def _panel(self, module: SegmentationModule, dataset: SegmentationDataset) -> Image.Image:
        indices = np.linspace(0, len(dataset) - 1, min(self.num_pictures, len(dataset))).round().astype(int)
        colours = list(class_colours(module.target.class_names).values())
        rows = []
        for index in indices:
            item = dataset[int(index)]
            truth, prediction = predict_item(module, item)
            image = item["image"]
            rows.append(
                [
                    image,
                    overlay(image, truth, colours),
                    overlay(image, prediction, colours),
                    errors(image, truth, prediction),
                ]
            )
        return panel(rows, ("picture", "truth", "prediction", "error"))
