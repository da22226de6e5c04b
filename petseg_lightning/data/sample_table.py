"""Many annotated pictures in little memory: a table with each once, and splits as its row numbers."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from petseg_lightning.data.samples import MaskCode, Sample


@dataclass(frozen=True)
class Kind:
    """What the pictures of one breed in one folder share.

    Picture `name` is `<images>/<name><ending>` and its mask `<masks>/<name>.png`; the rest is as in `Sample`.
    """

    images: Path
    ending: str
    masks: Path
    code: MaskCode
    breed: str = ""
    species: str = ""


class SampleTable:
    """Every picture once, in the order of `append`; a row takes 16 bytes and its name."""

    def __init__(self) -> None:
        self._names = bytearray()
        self._name_ends = array("q", [0])
        self._kinds: list[Kind] = []
        self._shared: dict[Kind, Kind] = {}

    def __len__(self) -> int:
        return len(self._kinds)

    def append(self, name: str, kind: Kind) -> int:
        """The row of a new picture. Does not look whether it is there already."""
        self._names += name.encode("utf-8", "surrogatepass")
        self._name_ends.append(len(self._names))
        self._kinds.append(self._shared.setdefault(kind, kind))
        return len(self) - 1

    def name(self, row: int) -> str:
        return self._names[self._name_ends[row] : self._name_ends[row + 1]].decode("utf-8", "surrogatepass")

    def kind(self, row: int) -> Kind:
        return self._kinds[row]

    def sample(self, row: int) -> Sample:
        name, kind = self.name(row), self._kinds[row]
        image, mask = kind.images / f"{name}{kind.ending}", kind.masks / f"{name}.png"
        return Sample(name, image, mask, kind.code, kind.breed, kind.species)


class Samples(Sequence[Sample]):
    """Rows of a table as an immutable sequence, 4 bytes each; a `Sample` is made when it is asked for.

    A row may be there several times. Slices and `take` share the table.
    """

    def __init__(self, table: SampleTable, rows: ArrayLike) -> None:
        self.table = table
        self.rows = np.array(rows, np.int32)  # (N,)
        self.rows.flags.writeable = False

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return Samples(self.table, self.rows[index])
        return self.table.sample(self.rows[index])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {len(self.table):,} pictures)"

    def take(self, indices: ArrayLike) -> "Samples":
        """The entries at `indices`, integers (M,), in their order."""
        return Samples(self.table, self.rows[np.asarray(indices, np.int64)])

    def unique(self) -> tuple["Samples", np.ndarray]:
        """Every picture once, in the order of first appearance; and for each entry its index there, int32 (N,).

        `unique()[0].take(unique()[1])` are the entries again.
        """
        first = np.full(len(self.table), -1, np.int32)
        first[self.rows[::-1]] = np.arange(len(self) - 1, -1, -1, dtype=np.int32)  # the last value assigned stays
        order = np.sort(first[first >= 0])
        index_of = np.empty(len(self.table), np.int32)
        index_of[self.rows[order]] = np.arange(len(order), dtype=np.int32)
        return self.take(order), index_of[self.rows]

    @property
    def names(self) -> list[str]:
        """Of every entry, N strings of their own."""
        return [self.table.name(row) for row in self.rows]

    @property
    def breeds(self) -> list[str]:
        """Of every entry, N references to one string per breed."""
        return [self.table.kind(row).breed for row in self.rows]
