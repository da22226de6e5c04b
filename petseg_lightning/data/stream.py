"""Pictures from tar shards (WebDataset format), read in one pass: for more of them than disks or memory can hold.

`petseg shard` writes the shards. Beside them lies `index.json`, which says how many pictures each one holds, so that
every rank and every worker knows its share of an epoch without having read any.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader

from petseg_lightning.data.datamodule import SPLITS, LoaderOptions, SegmentationDataModule
from petseg_lightning.data.disk_cache import DiskArrays, open_disk_cache, writable_cache
from petseg_lightning.data.sample_table import Kind, Samples, SampleTable
from petseg_lightning.data.samples import MaskCode
from petseg_lightning.data.shard_batches import LANES, ShardBatches
from petseg_lightning.data.shards import (
    INDEX,
    Member,
    Shard,
    check_size,
    is_address,
    parse_index,
    read_file,
    read_shard,
)
from petseg_lightning.data.splits import EpochSampler
from petseg_lightning.data.targets import IGNORE, PET_PARTS, own_target, pet_target
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json

log = logging.getLogger(__name__)


class StreamDataModule(SegmentationDataModule):
    """Shards that `petseg shard` wrote: the train split is streamed, val and test are unpacked once.

    Neither memory nor disk grows with the number of training pictures. Their order is a function of (seed, epoch,
    number of devices): shards in random order, and `shuffle_buffer` pictures mixed on each device. Asking for `train`
    in `splits` or `pictures` unpacks it too.

    Args:
        root: a folder, or the http, https, gs or s3 address of one.
        target: see `pet_target`; for shards of other data than pets the masks hold the classes themselves.
        border: see `pet_target`.
        shuffle_buffer: how many encoded pictures each device holds to mix them.
        options: see `SegmentationDataModule`; cache_dir is also where splits are unpacked, and what divides the
            splits was decided when the shards were written.

    Raises:
        InputError: webdataset is not installed, no index.json of shards in this format, or other splits or pictures
            of others, pasted, are asked for.
    """

    decoded_splits = ("val", "test")

    def __init__(
        self,
        root: str | Path,
        target: str = "trimap",
        border: str | None = None,
        shuffle_buffer: int = 2000,
        **options: Unpack[LoaderOptions],
    ) -> None:
        address = is_address(str(root))
        self._location = str(root).rstrip("/") if address else str(Path(root).absolute())
        content = read_file(f"{self.location}/{INDEX}")
        self.index = parse_index(content, self.location)
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        part_names = tuple(self.index["part_names"])
        super().__init__(
            root, pet_target(target, border) if part_names == PET_PARTS else own_target(part_names), **options
        )
        if self.num_folds is not None or self.train_fraction < 1:
            raise InputError(
                f"data.num_folds={self.num_folds} data.train_fraction={self.train_fraction}: shards keep the splits "
                "that they were written with; give both to petseg shard, or leave them out"
            )
        if self.pastes:
            raise InputError(
                "augmentation.copy_paste looks up other training pictures, which data=stream never has at hand: set "
                "augmentation.copy_paste.p=0, or use data that are no shards"
            )
        self.shuffle_buffer = shuffle_buffer
        self.unpacked = (
            writable_cache(self.root) if self.cache_dir is None else Path(self.cache_dir)
        ) / self.fingerprint
        values = (*range(len(part_names)), IGNORE)
        self.code = MaskCode(values, values)

    @property
    def location(self) -> str:
        """Where the shards are: an absolute path or a URL."""
        return self._location

    def shards(self, split: str) -> list[Shard]:
        entries = self.index["splits"][split]["shards"]
        return [Shard(f"{self.location}/{entry['name']}", entry["count"]) for entry in entries]

    def prepare_data(self) -> None:
        """Check that shards in a folder are whole, unpack val and test. Raises InputError for one that is not."""
        if "://" not in self.location:
            for split in SPLITS:
                for entry in self.index["splits"][split]["shards"]:
                    check_size(Path(self.location, entry["name"]), entry["bytes"])
        for split in ("val", "test"):
            self._unpack(split)

    @cached_property
    def splits(self) -> dict[str, Samples]:
        """The samples of each split, unpacked when asked for."""
        return self.read_splits()

    def read_splits(self) -> dict[str, Samples]:
        return _Lazy(self._unpacked_samples)

    @property
    def counts(self) -> dict[str, int]:
        return {split: self.index["splits"][split]["count"] for split in SPLITS}

    def file_digests(self) -> dict[str, dict[str, str]]:
        """That of the index, which knows the shards; they may be too many to be read."""
        return {"shards": {INDEX: self.fingerprint}}

    def training_names(self, indices: Sequence[int]) -> list[str]:
        """Numbers: names are in the shards."""
        return [f"number {index}" for index in indices]

    def description(self) -> dict[str, Any]:
        """What a run records: where the shards are, how much they hold, and a fingerprint of their index."""
        return {
            "source": type(self).__name__,
            "root": self.location,
            "counts": self.counts,
            "breeds": self.index["source"]["breeds"],
            "fingerprint": self.fingerprint,
        }

    def _disk_arrays(self, table: SampleTable) -> DiskArrays:
        return open_disk_cache(table, self.image_size, self.unpacked, self.cache_dir)

    def part_pixels(self) -> np.ndarray:
        """The shares that were counted when the shards were written, at the pictures' own resolution."""
        return np.array(self.index["part_shares"])

    def train_dataloader(self) -> DataLoader[Any]:
        return self._stream(shuffle=True, augmentation=self.augmentation, planner=self.device_augmentation)

    def evaluation_dataloader(
        self, split: str, *, with_original_parts: bool = False, with_original_images: bool = False
    ) -> DataLoader[Any]:
        """Every picture of a split once, without augmentation; streamed, where it is the train split's."""
        if split == "train" and not with_original_images:
            return self._stream(shuffle=False, with_original_parts=with_original_parts)
        return super().evaluation_dataloader(
            split, with_original_parts=with_original_parts, with_original_images=with_original_images
        )

    def _stream(self, *, shuffle: bool, **options: Any) -> DataLoader[Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = ShardBatches(
            self.shards("train"),
            self.code,
            self.image_size,
            self.batch_size,
            shuffle_buffer=self.shuffle_buffer if shuffle else None,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            **options,
        )
        workers = self.num_workers
        if workers is None:
            workers = next(number for number in LANES if number <= self._many_workers())
        return self._made(
            batches,
            shuffle,
            batch_size=None,
            sampler=EpochSampler(len(batches), shuffle=False),
            num_workers=workers,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0 and shuffle,
        )

    def _unpacked_samples(self, split: str) -> Samples:
        """The samples of a split as files, in the order of the source."""
        folder, table = self._unpack(split), SampleTable()
        for row in json.loads((folder / "samples.json").read_text("utf-8")):
            images, masks = (folder / row["shard"] / kind for kind in ("images", "masks"))
            table.append(row["name"], Kind(images, row["ending"], masks, self.code, row["breed"], row["species"]))
        return Samples(table, range(len(table)))

    def _unpack(self, split: str) -> Path:
        """The folder of a split, made where it is missing, whole or not at all."""
        folder = self.unpacked / split
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{split}.lock")):
            if not folder.is_dir():
                log.info("Unpacking %s %s pictures into %s", f"{self.counts[split]:,}", split, folder)
                partial = folder.with_name(f".{split}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                _write_samples(partial, self.shards(split), self.code)
                partial.rename(folder)
        return folder


class _Lazy(dict[str, Samples]):
    """The samples of a split, read when asked for."""

    def __init__(self, read: Callable[[str], Samples]) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, split: str) -> Samples:
        return self.setdefault(split, self.read(split))


def _write_samples(folder: Path, shards: Sequence[Shard], code: MaskCode) -> None:
    """The pictures of shards as files, in a folder for each shard, and samples.json, which lists them by index."""
    rows = []
    for shard in shards:
        name = Path(shard.url).stem
        for index, sample in read_shard(shard, code):
            ending = PurePosixPath(str(sample.image)).suffix
            for path, member in (
                (folder / name / "images" / f"{sample.name}{ending}", sample.image),
                (folder / name / "masks" / f"{sample.name}.png", sample.mask),
            ):
                assert isinstance(member, Member)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.getvalue())
            row = {"name": sample.name, "ending": ending, "breed": sample.breed, "species": sample.species}
            rows.append({"index": index, "shard": name, **row})
    write_json(folder / "samples.json", sorted(rows, key=lambda row: row["index"]))
