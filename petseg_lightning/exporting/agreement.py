"""Whether an exported model says what the model says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from petseg_lightning.data.datamodule import SegmentationDataModule
from petseg_lightning.evaluation import own_protocol, protocol_scores
from petseg_lightning.inference.member import Forward
from petseg_lightning.metrics.confusion import confusion_counts
from petseg_lightning.segmenter import Segmenter, classes

SIZES = ((1.0, 1.0), (0.75, 1.3), (1.6, 1.0))  # height and width of the pictures that are compared, in image_size


@dataclass(frozen=True)
class Agreement:
    """How near the logits of two models are.

    Args:
        same_class: share of the pixels with the same most likely class.
        difference: largest absolute difference of logits.
    """

    same_class: float
    difference: float


def compare(forward: Forward, module: Segmenter, pictures: Sequence[np.ndarray]) -> Agreement:
    """Compare a function from uint8 images to logits with a model.

    Args:
        forward: uint8 (B,3,H,W) -> logits (B,K,H,W).
        module: the model.
        pictures: uint8 RGB (H,W,3), which are brought to several sizes; one goes alone, the others in pairs.
    """
    size, same, total, difference = module.description["preprocessing"]["image_size"], 0, 0, 0.0
    for height, width in SIZES:
        sides = round(width * size), round(height * size)
        images = [np.asarray(Image.fromarray(picture).resize(sides)) for picture in pictures]
        stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        for batch in (stack[:1], *stack[1:].split(2)):
            with torch.inference_mode():
                expected = module(batch)
            found = forward(batch).cpu()
            same += int((classes(found) == classes(expected)).sum())
            total += expected[:, 0].numel()
            difference = max(difference, float((found - expected).abs().max()))
    return Agreement(same / total, difference)


def mean_iou(forward: Forward, module: Segmenter, datamodule: SegmentationDataModule) -> float:
    """Mean IoU on the validation split, in the model's classes, of a function from uint8 images to logits."""
    sizes = len(module.target.part_names), len(module.target.class_names)
    counts = torch.zeros(sizes, dtype=torch.int64)
    for batch in datamodule.evaluation_dataloader("val"):
        logits: Tensor = forward(batch["image"]).cpu()
        counts += confusion_counts(classes(logits), batch["parts"], *sizes).sum(0)
    miou = protocol_scores(counts[None].numpy(), own_protocol(module, datamodule))["miou"]
    return float("nan") if miou is None else miou
