"""Pictures to items, items to batches."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from petseg_lightning.data.cache import Pictures
from petseg_lightning.data.samples import read_parts
from petseg_lightning.data.splits import PADDING
from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import Augmentation


class Item(TypedDict):
    """image uint8 (H,W,3), parts uint8 (H,W), its index (-1: padding), perhaps the parts as on disk."""

    image: np.ndarray
    parts: np.ndarray
    index: int
    original_parts: NotRequired[np.ndarray]


class Batch(TypedDict):
    """image uint8 (B,3,H,W), channels last in memory; parts uint8 (B,H,W); index int64 (B,).

    original_parts: B masks as on disk, uint8, each (H,W) of its own.
    """

    image: Tensor
    parts: Tensor
    index: Tensor
    original_parts: NotRequired[list[Tensor]]


class SegmentationDataset(Dataset[Item]):
    """Items by (epoch, index), or by index alone (epoch 0).

    Index -1 is a black picture that counts for nothing.
    """

    def __init__(
        self, pictures: Pictures, augmentation: Augmentation | None = None, *, with_original_parts: bool = False
    ) -> None:
        self.pictures, self.augmentation, self.with_original_parts = pictures, augmentation, with_original_parts

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if index == PADDING:
            size = self.pictures.image_size
            image, parts = np.zeros((size, size, 3), np.uint8), np.full((size, size), IGNORE, np.uint8)
        else:
            image, parts = self.pictures[index]
            if self.augmentation is not None:
                image, parts = self.augmentation(image, parts, epoch, index)
        item = Item(image=image, parts=parts, index=index)
        if self.with_original_parts:
            item["original_parts"] = parts if index == PADDING else read_parts(self.pictures.samples[index])
        return item


def collate(items: Sequence[Item]) -> Batch:
    batch = Batch(
        image=torch.from_numpy(np.stack([item["image"] for item in items])).permute(0, 3, 1, 2),
        parts=torch.from_numpy(np.stack([item["parts"] for item in items])),
        index=torch.tensor([item["index"] for item in items]),
    )
    if "original_parts" in items[0]:
        batch["original_parts"] = [torch.from_numpy(item["original_parts"]) for item in items]
    return batch
