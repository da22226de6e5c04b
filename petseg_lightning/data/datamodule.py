"""The data module: splits, loaders, and what a run records about its data."""

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from petseg_lightning.data.cache import MemoryArrays, Pictures, require_heads
from petseg_lightning.data.dataset import (
    Batch,
    Item,
    PlannedDataset,
    SegmentationDataset,
    collate,
)
from petseg_lightning.data.disk_cache import DiskArrays, open_disk_cache
from petseg_lightning.data.epoch_loader import EpochLoader
from petseg_lightning.data.sample_table import Samples, SampleTable
from petseg_lightning.data.samples import Sample, require_files
from petseg_lightning.data.splits import EpochSampler, stratified_folds, stratified_holdout
from petseg_lightning.data.targets import IGNORE, Target
from petseg_lightning.errors import InputError
from petseg_lightning.interruption import leave_signals_to_the_parent

if TYPE_CHECKING:
    from petseg_lightning.data.device_augmentation import DeviceAugmentation
    from petseg_lightning.data.transforms import Augmentation

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
RESIDENT_SHARE = 0.5  # of a GPU's free memory that pictures may take


class LoaderOptions(TypedDict, total=False):
    """The arguments of SegmentationDataModule, which its subclasses pass on."""

    image_size: int
    batch_size: int
    val_fraction: float
    num_folds: int | None
    fold: int
    train_fraction: float
    split_seed: int
    num_workers: int | None
    cache: str
    cache_dir: str | None
    transforms: Sequence[Any]
    device_augment: bool
    seed: int


class SegmentationDataModule(LightningDataModule, ABC):
    """Pictures and masks of one layout as loaders of `Batch`. A subclass says what there is: `read_splits`.

    `transforms` are albumentations transforms for the training pictures; `seed` orders and augments them, and
    `split_seed` draws the validation split from what `read_splits` calls trainval, stratified by breed: either
    `val_fraction` of it, or number `fold` of `num_folds` parts. Of the rest, `train_fraction` is trained on, stratified
    too; what a smaller fraction takes is part of what a larger one takes, but for a picture per breed.
    """

    decoded_splits: ClassVar[tuple[str, ...]] = SPLITS  # before a training

    def __init__(
        self,
        root: str | Path,
        target: Target,
        *,
        image_size: int = 128,
        batch_size: int = 16,
        val_fraction: float = 0.1,
        num_folds: int | None = None,
        fold: int = 0,
        train_fraction: float = 1.0,
        split_seed: int = 0,
        num_workers: int | None = None,
        cache: str = "disk",
        cache_dir: str | None = None,
        transforms: Sequence[Any] = (),
        device_augment: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.target = Path(root), target
        self.image_size, self.batch_size = image_size, batch_size
        self.val_fraction, self.num_folds, self.fold = val_fraction, num_folds, fold
        self.train_fraction, self.split_seed, self.seed = train_fraction, split_seed, seed
        self.cache, self.cache_dir = cache, cache_dir
        self.pastes = False
        self.augmentation: Augmentation | None = None
        self.device_augmentation: DeviceAugmentation | None = None
        if transforms:
            self._augment(transforms, device_augment)
        self._resident: tuple[Tensor, Tensor] | None = None
        self.num_workers = num_workers
        self._pictures: dict[str, Pictures] = {}
        self._opened: dict[SampleTable, DiskArrays] = {}

    def _augment(self, transforms: Sequence[Any], on_device: bool) -> None:
        from petseg_lightning.data.copy_paste import CopyPaste  # albumentations: half a second, not for every training
        from petseg_lightning.data.device_augmentation import DeviceAugmentation
        from petseg_lightning.data.transforms import Augmentation

        self.pastes = any(isinstance(transform, CopyPaste) for transform in transforms)
        if self.pastes and self.target.part_names[0] != "background":
            raise InputError(
                "augmentation.copy_paste pastes all classes but the first, which must be the background: begin "
                f"data.class_names={list(self.target.part_names)} with background, or set augmentation.copy_paste.p=0"
            )
        if on_device:
            self.device_augmentation = DeviceAugmentation(transforms, self.seed, self.image_size)
        else:
            self.augmentation = Augmentation(transforms, self.seed)

    @property
    def location(self) -> str:
        """Where the data is, from everywhere."""
        return str(self.root.absolute())

    @abstractmethod
    def read_splits(self) -> dict[str, Samples]:
        """The samples of `test` and of either `trainval` or `train` and `val`, in a stable order, of one table."""

    @cached_property
    def splits(self) -> dict[str, Samples]:
        """The samples of train, val and test.

        What trainval or train lists several times is trained on as often; the validation split is drawn from the
        different pictures, has each once, and leaves none of their repetitions to train.

        Raises InputError for an empty split, a missing file, a picture of two splits, and one that is twice in
        val or test.
        """
        splits = self.read_splits()
        for split in splits.keys() & {"trainval", "train"}:
            pictures, index = splits[split].unique()
            if len(pictures) < len(index):
                counts = f"{len(index):,} names of {len(pictures):,} pictures"
                log.info("%s lists %s: each is trained on as often as it is listed", split, counts)
        if "trainval" in splits:
            trainval = splits.pop("trainval")
            pictures, index = trainval.unique()
            if self.num_folds is None:
                held_out = stratified_holdout(pictures.breeds, self.val_fraction, self.split_seed)
            else:
                folds = stratified_folds(pictures.breeds, self.num_folds, self.split_seed)
                held_out = np.flatnonzero(folds == self.fold).tolist()
            splits["train"] = trainval.take(np.flatnonzero(~np.isin(index, held_out)))
            splits["val"] = pictures.take(held_out)
        elif self.num_folds is not None:
            raise InputError(
                f"data.num_folds={self.num_folds}: {self.root} says itself what its validation split is; "
                "leave data.num_folds out"
            )
        if self.train_fraction < 1:
            breeds = splits["train"].breeds
            splits["train"] = splits["train"].take(stratified_holdout(breeds, self.train_fraction, self.split_seed))
        for split in SPLITS:
            if not splits[split]:
                raise InputError(
                    f"the {split} split of {self.root} has no pictures; each of train, val and test needs at "
                    f"least one (data.val_fraction={self.val_fraction})"
                )
            require_files(splits[split].unique()[0])
        _require_apart(splits)
        return {split: splits[split] for split in SPLITS}

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(samples) for split, samples in self.splits.items()}

    def training_names(self, indices: Sequence[int]) -> list[str]:
        """What training pictures are called."""
        return [self.splits["train"][index].name for index in indices]

    def description(self) -> dict[str, Any]:
        """What a run records: where the data is, how much, and a fingerprint of names and file sizes."""
        digest, breeds = hashlib.sha256(), set[str]()
        for split, samples in self.splits.items():
            pictures, index = samples.unique()
            for sample in pictures:
                sizes = sample.image.stat().st_size, sample.mask.stat().st_size
                digest.update(f"{split} {sample.name} {sizes}\n".encode())
                breeds.add(sample.breed)
            if len(pictures) < len(index):
                digest.update(index.tobytes())
        return {
            "source": type(self).__name__,
            "root": str(self.root),
            "counts": self.counts,
            "breeds": len(breeds - {""}),
            "fingerprint": digest.hexdigest()[:16],
        }

    def file_digests(self) -> dict[str, dict[str, str]]:
        """What tells the contents of files: 32 hexadecimal digits of picture and mask by split and name."""

        def digest(sample: Sample) -> str:
            return "".join(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (sample.image, sample.mask))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            unique = {split: samples.unique()[0] for split, samples in self.splits.items()}
            return {
                split: {sample.name: text for sample, text in zip(samples, pool.map(digest, samples), strict=True)}
                for split, samples in unique.items()
            }

    def pictures(self, split: str) -> Pictures:
        """The pictures of train, val or test, decoded at most once."""
        if split not in self._pictures:
            samples, size = self.splits[split], self.image_size
            if self.cache == "disk":
                self._pictures[split] = Pictures(samples, size, self._disk_arrays(samples.table), samples.rows)
            elif self.cache == "memory":
                unique, rows = samples.unique()
                self._pictures[split] = Pictures(samples, size, MemoryArrays(unique, size), rows)
            else:
                self._pictures[split] = Pictures(samples, size)
        return self._pictures[split]

    def _disk_arrays(self, table: SampleTable) -> DiskArrays:
        if table not in self._opened:
            self._opened[table] = open_disk_cache(table, self.image_size, self.root, self.cache_dir)
        return self._opened[table]

    def part_pixels(self) -> np.ndarray:
        """How many pixels of the training masks each part has, or their shares; float64 (number of parts,)."""
        pictures, parts = self.pictures("train"), np.zeros(256)
        _, firsts, times = np.unique(pictures.samples.rows, return_index=True, return_counts=True)
        for index, listed in zip(firsts, times, strict=True):
            parts += listed * np.bincount(pictures[index][1].ravel(), minlength=256)
        return parts[: len(self.target.part_names)]

    def class_weights(self) -> list[float]:
        """Inverse frequencies of the classes over the training masks, with a mean of 1 over the pixels.

        A class without any pixel weighs 0.
        """
        parts = self.part_pixels()
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
        for split in self.decoded_splits if stage == "fit" else ():
            pictures = self.pictures(split)
            if self.cache == "none":
                require_heads(pictures.samples)

    def train_dataloader(self) -> DataLoader[Any]:
        pictures = self.pictures("train")
        if self.device_augmentation is None:
            return self._loader(SegmentationDataset(pictures, self.augmentation), shuffle=True)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._resident = _on_device(pictures, device)
        dataset = PlannedDataset(pictures, self.device_augmentation, pixels=self._resident is None)
        return self._loader(dataset, shuffle=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Look up the pictures of a `PlannedBatch` where they are on the device, augment them there: a `Batch`."""
        if self.device_augmentation is None or not isinstance(batch, dict) or "plan" not in batch:
            return batch
        if self._resident is not None:
            images, parts = (tensor.index_select(0, batch["index"]) for tensor in self._resident)
            images = images.permute(0, 3, 1, 2)
        else:
            images, parts = batch["image"], batch["parts"]
        images, parts = self.device_augmentation.apply(images, parts, batch["plan"])
        return Batch(image=images, parts=parts, index=batch["index"])

    def val_dataloader(self) -> DataLoader[Item]:
        return self.evaluation_dataloader("val")

    def evaluation_dataloader(
        self, split: str, *, with_original_parts: bool = False, with_original_images: bool = False
    ) -> DataLoader[Item]:
        """Every picture of a split once, in order and without augmentation."""
        dataset = SegmentationDataset(
            self.pictures(split), with_original_parts=with_original_parts, with_original_images=with_original_images
        )
        return self._loader(dataset, shuffle=False)

    def _many_workers(self) -> int:
        """A worker per core, 8 at most; half of that where the network needs the cores as well."""
        on_cpu = self.trainer is None or self.trainer.strategy.root_device.type == "cpu"
        return max(1, min(os.cpu_count() or 1, 8) // (2 if on_cpu else 1))

    def _loader(self, dataset: SegmentationDataset | PlannedDataset, *, shuffle: bool) -> DataLoader[Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers = self.num_workers
        if workers is None:
            idle = self.cache != "none" and dataset.only_looks_up
            workers = 0 if idle else self._many_workers()
        return self._made(
            dataset,
            shuffle,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=self.seed, rank=rank, world_size=world_size),
            num_workers=workers,
            collate_fn=collate,
            generator=torch.Generator(),  # else it draws from the global one, the more often the fewer workers
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0 and shuffle,
        )

    def _made(self, dataset: Dataset[Any], shuffle: bool, **options: Any) -> DataLoader[Any]:
        """A loader; that of the training goes on within an epoch where the trainer does."""
        options["worker_init_fn"] = leave_signals_to_the_parent
        if not shuffle:
            return DataLoader(dataset, **options)
        loader = EpochLoader(dataset, **options)
        loader.batches_done = self._batches_done
        return loader

    def _batches_done(self) -> int:
        return self.trainer.fit_loop.batch_idx + 1 if self.trainer and self.trainer.training else 0


def _on_device(pictures: Pictures, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Images (N,S,S,3) and parts (N,S,S) of a split on a GPU; None elsewhere, and where they are too many."""
    arrays, rows = pictures.arrays, pictures.rows
    if device.type != "cuda" or arrays is None or rows is None:
        return None
    size = len(pictures) * (arrays.images[0].nbytes + arrays.parts[0].nbytes)
    if size > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    return torch.from_numpy(arrays.images[rows]).to(device), torch.from_numpy(arrays.parts[rows]).to(device)


def _require_apart(splits: Mapping[str, Samples]) -> None:
    table = splits["train"].table
    listed = {split: np.bincount(samples.rows, minlength=len(table)) for split, samples in splits.items()}
    uses = np.sum([*listed.values()], axis=0)
    twice = np.flatnonzero(uses - np.maximum(listed["train"] - 1, 0) > 1)
    if len(twice):
        raise InputError(
            f"{table.sample(twice[0]).image} is listed {uses[twice[0]]} times ({len(twice)} such pictures); "
            "take the repetitions out of the lists, so that no split holds a picture of another"
        )
