import pickle
from pathlib import Path

import numpy as np
import pytest

from petseg_lightning.data.sample_table import Kind, Samples, SampleTable
from petseg_lightning.data.samples import MaskCode, Sample

CODES = MaskCode((0, 1), (0, 1)), MaskCode((1, 2), (0, 255))
NAMES = ("a_1", "b/é_2", "", "🐈", "x" * 500, "invalid\udcff", "a_1")  # two pictures may have one name


def kind(i: int) -> Kind:
    return Kind(Path("p"), (".jpg", ".PNG")[i % 2], Path("q/r"), CODES[i % 2], "abc"[i % 3], "cat" if i % 2 else "")


@pytest.fixture
def table() -> SampleTable:
    table = SampleTable()
    assert [table.append(name, kind(i)) for i, name in enumerate(NAMES)] == list(range(len(NAMES)))
    return table


@pytest.fixture
def plain() -> list[Sample]:
    """The same pictures, one by one."""
    endings = [(".jpg", ".PNG")[i % 2] for i in range(len(NAMES))]
    return [
        Sample(name, Path(f"p/{name}{ending}"), Path(f"q/r/{name}.png"), kind(i).code, kind(i).breed, kind(i).species)
        for i, (name, ending) in enumerate(zip(NAMES, endings, strict=True))
    ]


def test_samples_are_the_list_of_their_pictures(table, plain):
    rows = np.random.default_rng(0).integers(0, len(table), 40).tolist()
    samples, expected = Samples(table, rows), [plain[row] for row in rows]
    assert len(samples) == 40
    assert list(samples) == expected
    assert samples[np.int64(3)] == samples[-37] == expected[3]
    for part in (slice(None), slice(5, 30, 7), slice(None, None, -1), slice(3, 3)):
        assert isinstance(samples[part], Samples)
        assert list(samples[part]) == expected[part]
    assert samples.names == [sample.name for sample in expected]
    assert samples.breeds == [sample.breed for sample in expected]
    assert expected[5] in samples
    assert not Samples(table, [])
    for index in (40, -41):
        with pytest.raises(IndexError):
            samples[index]


@pytest.mark.parametrize("indices", [[], [3], (2, 2, 0), np.array([1, 4], np.int32), range(6)])
def test_taken_entries_share_the_table(table, plain, indices):
    samples = Samples(table, [6, 5, 4, 3, 2, 1, 0])[:6]
    taken = samples.take(indices)
    assert list(taken) == [plain[6 - i] for i in indices]
    assert taken.table is table


def test_samples_never_change(table, plain):
    rows = np.array([1, 0])
    samples = Samples(table, rows)
    rows[:] = 5
    with pytest.raises(ValueError, match="read-only"):
        samples.rows[0] = 2
    table.append("later", kind(0))
    assert list(samples) == [plain[1], plain[0]]


@pytest.mark.parametrize("rows", [[], [4], [5, 1, 5, 0, 1, 1], [0, 1, 2], [6] * 9])
def test_unique_pictures_in_the_order_of_their_first_appearance(table, rows):
    samples = Samples(table, rows)
    pictures, index = samples.unique()
    assert pictures.rows.tolist() == list(dict.fromkeys(rows))
    assert pictures.take(index).rows.tolist() == rows
    assert index.dtype == np.int32


def test_a_copy_for_another_process(table):
    samples = Samples(table, [2, 1, 5])
    assert list(pickle.loads(pickle.dumps(samples))) == list(samples)


def test_kinds_are_kept_once():
    table = SampleTable()
    for i in range(50):
        table.append("n", kind(i))
    assert len({id(table.kind(row)) for row in range(50)}) == 6
