"""Pictures from tar shards (WebDataset format), read in one pass: for more of them than disks or memory can hold.

`petseg shard` writes the shards. Beside them lies `index.json`, which says how many pictures each one holds, so that
every rank and every worker knows its share of an epoch without having read any.
"""

import hashlib
import io
import json
import logging
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice, repeat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset

from petseg_lightning.data.datamodule import SPLITS, LoaderOptions, SegmentationDataModule
from petseg_lightning.data.dataset import PlannedDataset, Planner, SegmentationDataset, collate
from petseg_lightning.data.disk_cache import DiskArrays, open_disk_cache, writable_cache
from petseg_lightning.data.sample_table import Kind, Samples, SampleTable
from petseg_lightning.data.samples import MaskCode, Sample, read_resized
from petseg_lightning.data.splits import PADDING, EpochSampler
from petseg_lightning.data.targets import IGNORE, PET_PARTS, own_target, pet_target
from petseg_lightning.errors import InputError
from petseg_lightning.files import write_json

if TYPE_CHECKING:
    from petseg_lightning.data.transforms import Augmentation

log = logging.getLogger(__name__)

FORMAT = 1  # to be raised with every change of what a shard or its index holds
GENERATOR = "petseg shard"
INDEX = "index.json"
LANES = (24, 12, 8, 6, 4, 3, 2, 1)  # whole shares for every usual number of workers

Entry = tuple[int, Sample]  # its index in the split; index -1 is padding


@dataclass(frozen=True)
class Shard:
    """A tar file, by path or URL, and how many pictures it holds."""

    url: str
    count: int


class StreamDataModule(SegmentationDataModule):
    """Shards that `petseg shard` wrote: the train split is streamed, val and test are unpacked once.

    Neither memory nor disk grows with the number of training pictures. Their order is a function of (seed, epoch,
    number of devices): shards in random order, and `shuffle_buffer` pictures mixed on each device. Asking for `train`
    in `splits` or `pictures` unpacks it too.

    Args:
        root: a folder, or the http, https, gs or file URL of one.
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
        self._location = str(root).rstrip("/") if "://" in str(root) else str(Path(root).absolute())
        content = read_file(f"{self.location}/{INDEX}")
        self.index = _checked_index(content, self.location)
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
                    _check_size(Path(self.location, entry["name"]), entry["bytes"])
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
        return DataLoader(
            batches,
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


class ShardBatches(Dataset[Any]):
    """`Batch` n of an epoch, by (epoch, n), or by n alone (epoch 0); with a `planner` it is a `PlannedBatch`.

    The epoch's pictures, in random order shard by shard where there is a `shuffle_buffer`, are cut into an equal run
    for each rank, and each of those into lanes of consecutive batches; batch n is the next one of lane n modulo the
    number of lanes. So a batch depends on (seed, epoch, rank, world size, n) alone, whatever the number of workers,
    and where this divides the number of lanes, no worker reads what another one needs. Any order of n is right, a
    rising one reads once.

    Where the ranks cannot have equally many, training repeats the first pictures of the epoch and evaluation
    (shuffle_buffer=None) fills up with index -1, a picture that counts for nothing.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        code: MaskCode,
        image_size: int,
        batch_size: int,
        *,
        shuffle_buffer: int | None,
        seed: int = 0,
        augmentation: "Augmentation | None" = None,
        planner: Planner | None = None,
        with_original_parts: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.shards, self.code, self.image_size, self.batch_size = shards, code, image_size, batch_size
        self.shuffle_buffer, self.seed = shuffle_buffer, seed
        self.augmentation, self.planner, self.with_original_parts = augmentation, planner, with_original_parts
        share = -(-sum(shard.count for shard in shards) // world_size)
        self.first, self.end = rank * share, (rank + 1) * share  # this rank's run of the epoch
        self.num_lanes = next(number for number in LANES if number <= max(len(shards) // world_size, 1))
        self._epoch = -1
        self._lanes: dict[int, tuple[int, Iterator[list[Entry]]]] = {}  # the next step of each, and what comes then

    def __len__(self) -> int:
        return -(-(self.end - self.first) // self.batch_size)

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        if number not in range(len(self)):
            raise IndexError(number)
        if epoch != self._epoch:
            self._epoch = epoch
            self._lanes.clear()
        step, lane = divmod(number, self.num_lanes)
        next_step, batches = self._lanes.get(lane, (len(self), iter(())))
        if step < next_step:
            next_step, batches = 0, self._lane(epoch, lane)
        entries = next(islice(batches, step - next_step, None))
        self._lanes[lane] = step + 1, batches
        return self._decode(epoch, entries)

    def _lane(self, epoch: int, lane: int) -> Iterator[list[Entry]]:
        """The batches of a lane, still encoded."""
        steps, longer = divmod(len(self), self.num_lanes)  # the first `longer` lanes have a step more
        first = self.first + self.batch_size * (lane * steps + min(lane, longer))
        end = min(first + self.batch_size * (steps + (lane < longer)), self.end)
        entries = self._entries(epoch, first, end)
        if self.shuffle_buffer is not None:
            rng = np.random.default_rng([self.seed, epoch, first])
            entries = _mixed(entries, max(self.shuffle_buffer // self.num_lanes, 1), rng)
        while batch := list(islice(entries, self.batch_size)):
            yield batch

    def _entries(self, epoch: int, first: int, end: int) -> Iterator[Entry]:
        """What stands at positions `first` to `end` of the epoch; shards before and behind are not touched."""
        shards: Iterable[Shard] = self.shards
        if self.shuffle_buffer is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
            shards = cycle([self.shards[i] for i in order])
        position = 0
        for shard in shards:
            begin, stop = max(first - position, 0), min(end - position, shard.count)
            if begin < stop:
                yield from islice(read_shard(shard, self.code), begin, stop)
            position += shard.count
            if position >= end:
                return
        padding = Sample("", Path(), Path(), self.code)
        yield from repeat((PADDING, padding), end - max(first, position))

    def _decode(self, epoch: int, entries: Sequence[Entry]) -> Any:
        pictures: Any = _EncodedPictures(dict(entries), self.image_size)
        dataset: Dataset[Any]
        if self.planner is not None:
            dataset = PlannedDataset(pictures, self.planner, pixels=True)
        else:
            dataset = SegmentationDataset(pictures, self.augmentation, with_original_parts=self.with_original_parts)
        items: list[Any] = [dataset[epoch, index] for index, _ in entries]
        return collate(items)


def read_shard(shard: Shard, code: MaskCode) -> Iterator[Entry]:
    """The pictures of a shard with their indices, one after the other, still encoded.

    Raises:
        InputError: webdataset is not installed, or the shard cannot be read or holds another number of pictures than
            its index says; at the end of the shard where it ends too early.
    """
    _require_webdataset()
    from webdataset.gopen import gopen
    from webdataset.tariterators import group_by_keys, tar_file_expander

    found = 0
    try:
        with closing(gopen(shard.url)) as stream:
            for members in group_by_keys(tar_file_expander([{"url": shard.url, "stream": stream}])):
                yield _entry(shard.url, members, code)
                found += 1
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise InputError(
            f"{shard.url}: cannot be read as a shard ({_reason(error)}); copy it again from where petseg shard wrote it"
        ) from error
    if found != shard.count:
        raise InputError(
            f"{shard.url}: holds {found:,} pictures, but its {INDEX} says {shard.count:,}; "
            "copy both again from where petseg shard wrote them"
        )


def read_file(url: str) -> bytes:
    """The content of a small file by path or URL. Raises InputError where it cannot be read."""
    _require_webdataset()
    from webdataset.gopen import gopen

    try:
        with closing(gopen(url)) as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{url}: cannot be read ({_reason(error)}); give the folder or URL that petseg shard wrote as "
            "data.root=<folder>, or write one with petseg shard data=... out=<folder>"
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, in few words where it is a program like curl that failed."""
    program = re.search(r"\['(\w+)'.*exit (\d+)", str(error))
    return f"{program[1]} ended with exit code {program[2]}" if program else str(error)


def _require_webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise InputError("data=stream needs webdataset: pip install 'petseg-lightning[stream]'") from error


def _checked_index(content: bytes, location: str) -> dict[str, Any]:
    try:
        index = json.loads(content)
        known = index["generator"] == GENERATOR
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise InputError(f"{location}/{INDEX} is not of {GENERATOR}; write shards with petseg shard out=<folder>")
    if index["format"] != FORMAT:
        raise InputError(
            f"{location}/{INDEX} is of format {index['format']} and this version reads format {FORMAT}; "
            "write the shards again with petseg shard"
        )
    return index


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, not the {size:,} of {INDEX}"
        raise InputError(f"{path} {state}; copy it again from where petseg shard wrote it")


class _Member(io.BytesIO):
    """A file in a shard, which error messages name like a path."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


class _EncodedPictures:
    """`Pictures` of single samples by their index in the split, decoded when asked for."""

    def __init__(self, samples: Mapping[int, Sample], image_size: int) -> None:
        self.samples, self.image_size = samples, image_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return read_resized(self.samples[index], self.image_size)


class _Lazy(dict[str, Samples]):
    """The samples of a split, read when asked for."""

    def __init__(self, read: Callable[[str], Samples]) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, split: str) -> Samples:
        return self.setdefault(split, self.read(split))


def _entry(url: str, members: Mapping[str, Any], code: MaskCode) -> Entry:
    """An entry of what webdataset grouped: a member's content by the ending of its name."""
    row = json.loads(members["json"])
    (ending,) = (key for key in members if not key.startswith("__") and key not in ("json", "mask.png"))
    image, mask = (_Member(members[end], f"{url}/{members['__key__']}.{end}") for end in (ending, "mask.png"))
    return row["index"], Sample(row["name"], image, mask, code, row["breed"], row["species"])  # type: ignore[arg-type]


def _mixed(entries: Iterator[Entry], size: int, rng: np.random.Generator) -> Iterator[Entry]:
    """The same entries in random order, as far as holding `size` of them allows."""
    held: list[Entry] = []

    def take() -> Entry:
        chosen = rng.integers(len(held))
        held[chosen], held[-1] = held[-1], held[chosen]
        return held.pop()

    for entry in entries:
        held.append(entry)
        if len(held) == size:
            yield take()
    while held:
        yield take()


def _write_samples(folder: Path, shards: Sequence[Shard], code: MaskCode) -> None:
    """The pictures of shards as files, in a folder for each shard, and samples.json, which lists them by index."""
    rows = []
    for shard in shards:
        name = Path(shard.url).stem
        for index, sample in read_shard(shard, code):
            if sample.name.startswith("/") or ".." in PurePosixPath(sample.name).parts:
                raise InputError(f"{sample.image}: its name {sample.name} leaves the folder; write the shard again")
            ending = PurePosixPath(str(sample.image)).suffix
            for path, member in (
                (folder / name / "images" / f"{sample.name}{ending}", sample.image),
                (folder / name / "masks" / f"{sample.name}.png", sample.mask),
            ):
                assert isinstance(member, _Member)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.getvalue())
            row = {"name": sample.name, "ending": ending, "breed": sample.breed, "species": sample.species}
            rows.append({"index": index, "shard": name, **row})
    write_json(folder / "samples.json", sorted(rows, key=lambda row: row["index"]))
