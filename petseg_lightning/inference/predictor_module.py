"""A predictor in the place of a network, so that what users get is what is scored."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from petseg_lightning.data.dataset import Batch
from petseg_lightning.inference.checkpoint import target_of
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.module import SegmentationModule
from petseg_lightning.segmenter import classes

_SMALLEST = 1e-12  # probability, whose logarithm is finite


class PredictorModule(SegmentationModule):
    """Scores a predictor, with its windows, views and members, on pictures as they are on disk.

    Its logits are the logarithms of calibrated probabilities, at the size of the first member.

    Args:
        predictor: what is scored.
    """

    def __init__(self, predictor: Predictor) -> None:
        description = {**predictor.members[0].description, "temperature": 1.0}
        target = target_of(description)
        super().__init__(nn.Identity(), nn.Identity(), target, (0, 0, 0), (1, 1, 1), description=description)
        self.predictor = predictor

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (B,3,S,S) -> logits (B,K,S,S)."""
        pictures = [Image.fromarray(one) for one in images.permute(0, 2, 3, 1).cpu().numpy()]
        return self._at_own_size(pictures, self.predictor.logits(pictures))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:  # noqa: ARG002
        """What `SegmentationModule.test_step` returns, from the original images of the batch."""
        pictures = batch["original_image"]
        raw = self.predictor.logits(pictures)
        logits = self._at_own_size(pictures, raw)
        predictions = classes(logits)
        result = {
            "logits": logits,
            "predictions": predictions,
            "counts": self._part_counts(predictions, batch["parts"]),
        }
        if "original_parts" in batch:
            result["original_counts"] = torch.cat(
                [
                    self._part_counts(
                        classes(self.predictor.probabilities(picture, one, parts.shape)[None]), parts[None]
                    )
                    for picture, one, parts in zip(
                        pictures, zip(*raw, strict=True), batch["original_parts"], strict=True
                    )
                ]
            )
        return result

    def _at_own_size(self, pictures: list[Image.Image], raw: list[list[Tensor]]) -> Tensor:
        size: Any = (self.predictor.members[0].image_size,) * 2
        probabilities = [
            self.predictor.probabilities(picture, one, size)
            for picture, one in zip(pictures, zip(*raw, strict=True), strict=True)
        ]
        return torch.stack(probabilities).clamp_min(_SMALLEST).log().to(self.device)
