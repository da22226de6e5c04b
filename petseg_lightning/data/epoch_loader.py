"""A loader whose epochs can be taken up in the middle."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader


class EpochLoader(DataLoader[Any]):
    """A DataLoader over an `EpochSampler` that leaves out what the epoch has had before an interruption.

    Nothing is asked of sampler and workers before the first batch is: only then has Lightning said which epoch it is,
    and how many batches of it were done. (Its own protocol for this, `load_state_dict`, is not called where a scheduler
    has asked for the number of steps.)
    """

    sampler: Any
    batches_done: Callable[[], int] = staticmethod(lambda: 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.sampler.first = self.batches_done() * (self.batch_size or 1)
        yield from super().__iter__()
