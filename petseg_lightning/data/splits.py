"""Which pictures are held out, and in which order the others are seen."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

PADDING = -1


def stratified_holdout(groups: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Indices held out: round(fraction * n) of them, from every group in proportion to its size.

    Each group gives the whole part of its share; the largest remainders give one more. Depends on nothing but
    the arguments. Sorted.
    """
    rng = np.random.default_rng(seed)
    members: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
    for index, group in enumerate(groups):
        members[group].append(index)
    shares = {group: fraction * len(indices) for group, indices in members.items()}
    counts = {group: int(share) for group, share in shares.items()}
    missing = round(fraction * len(groups)) - sum(counts.values())
    by_remainder = sorted(shares, key=lambda group: (counts[group] - shares[group], group))
    for group in by_remainder[:missing]:
        counts[group] += 1
    return sorted(int(i) for group in sorted(members) for i in rng.permutation(members[group])[: counts[group]])


def stratified_folds(groups: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold of every index, integers (N,) in 0..num_folds-1.

    The members of each group, in random order, are dealt to the folds in turn, group after group: so both the folds
    and the shares that a group has in them differ by at most one.
    """
    _, group_of = np.unique(np.array(groups, dtype=str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    folds = np.empty(len(groups), np.int64)
    folds[order[np.argsort(group_of[order], kind="stable")]] = np.arange(len(groups)) % num_folds
    return folds


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), this rank's share of the epoch; the order is a function of (seed, epoch) alone.

    All ranks get equally many: training repeats the first indices where the number does not divide,
    evaluation (shuffle=False) fills up with index -1, which a data set turns into a picture that counts for
    nothing.
    Lightning calls `set_epoch`, also after resuming; `first` is how many of its share an epoch leaves out at its begin.
    """

    def __init__(self, num_samples: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.num_samples, self.shuffle, self.seed = num_samples, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first = 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_samples // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.num_samples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        short = len(self) * self.world_size - self.num_samples
        padding = np.resize(order, short) if self.shuffle else np.full(short, PADDING)
        for index in np.concatenate([order, padding])[self.rank :: self.world_size][self.first :]:
            yield self.epoch, int(index)
