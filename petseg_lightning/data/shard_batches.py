"""Batches of an epoch from tar shards, each rank's and each worker's share read in one pass."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from petseg_lightning.data.dataset import PlannedDataset, Planner, SegmentationDataset, collate
from petseg_lightning.data.samples import MaskCode, Sample, read_resized
from petseg_lightning.data.shards import Entry, Shard, read_shard
from petseg_lightning.data.splits import PADDING

if TYPE_CHECKING:
    from petseg_lightning.data.transforms import Augmentation

LANES = (24, 12, 8, 6, 4, 3, 2, 1)  # whole shares for every usual number of workers


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


class _EncodedPictures:
    """`Pictures` of single samples by their index in the split, decoded when asked for."""

    def __init__(self, samples: Mapping[int, Sample], image_size: int) -> None:
        self.samples, self.image_size = samples, image_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return read_resized(self.samples[index], self.image_size)


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
