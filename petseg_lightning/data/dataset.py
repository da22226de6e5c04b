"""Pictures to items, items to batches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from petseg_lightning.data.cache import Pictures
from petseg_lightning.data.picture_file import read_image
from petseg_lightning.data.samples import read_parts
from petseg_lightning.data.splits import PADDING
from petseg_lightning.data.targets import IGNORE

if TYPE_CHECKING:
    from petseg_lightning.data.transforms import Augmentation

STACKED = ("image", "parts", "plan")


class Planner(Protocol):
    """Draws how the picture `index` is augmented in an epoch, float32 (P,), without doing it."""

    def plan(self, epoch: int, index: int) -> np.ndarray: ...


class Item(TypedDict):
    """image uint8 (H,W,3), parts uint8 (H,W), its index (-1: padding), perhaps parts and picture as on disk."""

    image: np.ndarray
    parts: np.ndarray
    index: int
    original_parts: NotRequired[np.ndarray]
    original_image: NotRequired[Image.Image]


class Batch(TypedDict):
    """image uint8 (B,3,H,W), channels last in memory; parts uint8 (B,H,W); index int64 (B,).

    original_parts, original_image: B masks, uint8, and B RGB pictures as on disk, each (H,W) of its own. Where pictures
    are blended with others: other_parts uint8 (B,H,W), of those, and other_share, 0 to 1, their weight in image.
    """

    image: Tensor
    parts: Tensor
    index: Tensor
    original_parts: NotRequired[list[Tensor]]
    original_image: NotRequired[list[Image.Image]]
    other_parts: NotRequired[Tensor]
    other_share: NotRequired[float]


class PlannedItem(TypedDict):
    """Its index, and the plan of its augmentation, float32 (P,); image and parts, unless they are on the device."""

    index: int
    plan: np.ndarray
    image: NotRequired[np.ndarray]
    parts: NotRequired[np.ndarray]


class PlannedBatch(TypedDict):
    """A batch whose pixels are still to be augmented by plan, float32 (B,P), and perhaps to be looked up by index."""

    index: Tensor
    plan: Tensor
    image: NotRequired[Tensor]
    parts: NotRequired[Tensor]


class SegmentationDataset(Dataset[Item]):
    """Items by (epoch, index), or by index alone (epoch 0).

    Index -1 is a black picture that counts for nothing.
    """

    def __init__(
        self,
        pictures: Pictures,
        augmentation: "Augmentation | None" = None,
        *,
        with_original_parts: bool = False,
        with_original_images: bool = False,
    ) -> None:
        self.pictures, self.augmentation = pictures, augmentation
        self.with_original_parts, self.with_original_images = with_original_parts, with_original_images

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def only_looks_up(self) -> bool:
        """Whether an item of decoded pictures is made without any computation."""
        return self.augmentation is None and not (self.with_original_parts or self.with_original_images)

    def __getitem__(self, key: tuple[int, int] | int) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if index == PADDING:
            size = self.pictures.image_size
            image, parts = np.zeros((size, size, 3), np.uint8), np.full((size, size), IGNORE, np.uint8)
        else:
            image, parts = self.pictures[index]
            if self.augmentation is not None:
                image, parts = self.augmentation(image, parts, epoch, index, self.pictures)
        item = Item(image=image, parts=parts, index=index)
        if self.with_original_parts:
            item["original_parts"] = parts if index == PADDING else read_parts(self.pictures.samples[index])
        if self.with_original_images:
            black = Image.fromarray(image)
            item["original_image"] = black if index == PADDING else read_image(self.pictures.samples[index].image)
        return item


class PlannedDataset(Dataset[PlannedItem]):
    """Pictures by (epoch, index) with the plan of their augmentation, which is done in batches on the device.

    Without `pixels` only index and plan, for pictures that are on the device already.
    """

    only_looks_up = False

    def __init__(self, pictures: Pictures, planner: Planner, *, pixels: bool) -> None:
        self.pictures, self.planner, self.pixels = pictures, planner, pixels

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> PlannedItem:
        epoch, index = key
        item = PlannedItem(index=index, plan=self.planner.plan(epoch, index))
        if self.pixels:
            item["image"], item["parts"] = self.pictures[index]
        return item


def collate(items: Sequence[Item] | Sequence[PlannedItem]) -> Any:
    """Items to a `Batch`, planned ones to a `PlannedBatch`."""
    columns = {key: [item[key] for item in items] for key in items[0]}  # type: ignore[literal-required]
    batch: dict[str, Any] = {
        key: torch.from_numpy(np.stack(column)) for key, column in columns.items() if key in STACKED
    }
    if "image" in batch:
        batch["image"] = batch["image"].permute(0, 3, 1, 2)
    if "original_parts" in columns:
        batch["original_parts"] = [torch.from_numpy(parts) for parts in columns["original_parts"]]
    if "original_image" in columns:
        batch["original_image"] = columns["original_image"]
    return {**batch, "index": torch.tensor(columns["index"])}
