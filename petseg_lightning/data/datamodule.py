"""The data module: splits, loaders, and what a run records about its data."""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from petseg_lightning.data.cache import Pictures
from petseg_lightning.data.dataset import Item, SegmentationDataset, collate
from petseg_lightning.data.samples import Sample, require_files
from petseg_lightning.data.splits import EpochSampler, stratified_holdout
from petseg_lightning.data.targets import IGNORE, Target
from petseg_lightning.data.transforms import Augmentation
from petseg_lightning.errors import InputError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class LoaderOptions(TypedDict, total=False):
    """The arguments of SegmentationDataModule, which its subclasses pass on."""

    image_size: int
    batch_size: int
    val_fraction: float
    split_seed: int
    num_workers: int | None
    cache: str
    transforms: Sequence[Any]
    seed: int


class SegmentationDataModule(LightningDataModule, ABC):
    """Pictures and masks of one layout as loaders of `Batch`. A subclass says what there is: `read_splits`.

    `transforms` are albumentations transforms for the training pictures; `seed` orders and augments them, and
    `split_seed` draws the validation split from what `read_splits` calls trainval, stratified by breed.
    """

    def __init__(
        self,
        root: str | Path,
        target: Target,
        *,
        image_size: int = 128,
        batch_size: int = 16,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        num_workers: int | None = None,
        cache: str = "memory",
        transforms: Sequence[Any] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.target = Path(root), target
        self.image_size, self.batch_size = image_size, batch_size
        self.val_fraction, self.split_seed, self.seed = val_fraction, split_seed, seed
        self.in_memory = cache == "memory"
        self.augmentation = Augmentation(transforms, seed) if transforms else None
        self.num_workers = num_workers
        self._pictures: dict[str, Pictures] = {}

    @abstractmethod
    def read_splits(self) -> dict[str, list[Sample]]:
        """The samples of `test` and of either `trainval` or `train` and `val`, in a stable order."""

    @cached_property
    def splits(self) -> dict[str, list[Sample]]:
        """The samples of train, val and test.

        Raises InputError for an empty split, a missing file, and a picture that is there twice.
        """
        splits = self.read_splits()
        if "trainval" in splits:
            trainval = splits.pop("trainval")
            held_out = set(
                stratified_holdout([sample.breed for sample in trainval], self.val_fraction, self.split_seed)
            )
            splits["train"] = [sample for i, sample in enumerate(trainval) if i not in held_out]
            splits["val"] = [trainval[i] for i in sorted(held_out)]
        for split in SPLITS:
            if not splits[split]:
                raise InputError(
                    f"the {split} split of {self.root} has no pictures; each of train, val and test needs at "
                    f"least one (data.val_fraction={self.val_fraction})"
                )
            require_files(splits[split])
        uses = Counter(sample.image for samples in splits.values() for sample in samples)
        twice = [str(path) for path, times in uses.items() if times > 1]
        if twice:
            raise InputError(
                f"{twice[0]} is listed {uses[Path(twice[0])]} times ({len(twice)} such pictures); "
                "take the repetitions out of the lists, so that no split holds a picture of another"
            )
        return {split: splits[split] for split in SPLITS}

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(samples) for split, samples in self.splits.items()}

    def description(self) -> dict[str, Any]:
        """What a run records: where the data is, how much, and a fingerprint of names and file sizes."""
        digest = hashlib.sha256()
        for split, samples in self.splits.items():
            for sample in samples:
                sizes = sample.image.stat().st_size, sample.mask.stat().st_size
                digest.update(f"{split} {sample.name} {sizes}\n".encode())
        breeds = {sample.breed for samples in self.splits.values() for sample in samples if sample.breed}
        return {
            "source": type(self).__name__,
            "root": str(self.root),
            "counts": self.counts,
            "breeds": len(breeds),
            "fingerprint": digest.hexdigest()[:16],
        }

    def pictures(self, split: str) -> Pictures:
        """The pictures of train, val or test, decoded at most once."""
        if split not in self._pictures:
            self._pictures[split] = Pictures(self.splits[split], self.image_size, in_memory=self.in_memory)
        return self._pictures[split]

    def class_weights(self) -> list[float]:
        """Inverse frequencies of the classes over the training masks, with a mean of 1 over the pixels.

        A class without any pixel weighs 0.
        """
        pictures = self.pictures("train")
        parts = np.sum([np.bincount(pictures[i][1].ravel(), minlength=256) for i in range(len(pictures))], axis=0)
        pixels = np.zeros(len(self.target.class_names))
        for part, class_id in enumerate(self.target.part_to_class):
            if class_id != IGNORE:
                pixels[class_id] += parts[part]
        present = pixels > 0
        weights = np.zeros_like(pixels)
        weights[present] = pixels.sum() / (present.sum() * pixels[present])
        return weights.tolist()

    def setup(self, stage: str) -> None:
        """Before a training, the pictures of all splits: those of test are met at its end, and may be damaged."""
        for split in SPLITS if stage == "fit" else ():
            self.pictures(split)

    def train_dataloader(self) -> DataLoader[Item]:
        return self._loader(SegmentationDataset(self.pictures("train"), self.augmentation), shuffle=True)

    def val_dataloader(self) -> DataLoader[Item]:
        return self.evaluation_dataloader("val")

    def evaluation_dataloader(self, split: str, *, with_original_parts: bool = False) -> DataLoader[Item]:
        """Every picture of a split once, in order and without augmentation."""
        dataset = SegmentationDataset(self.pictures(split), with_original_parts=with_original_parts)
        return self._loader(dataset, shuffle=False)

    def _loader(self, dataset: SegmentationDataset, *, shuffle: bool) -> DataLoader[Item]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers = self.num_workers
        if workers is None:
            idle = self.in_memory and dataset.augmentation is None and not dataset.with_original_parts
            workers = 0 if idle else min(os.cpu_count() or 1, 8)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=self.seed, rank=rank, world_size=world_size),
            num_workers=workers,
            collate_fn=collate,
            generator=torch.Generator(),  # else it draws from the global one, the more often the fewer workers
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0 and shuffle,
        )
