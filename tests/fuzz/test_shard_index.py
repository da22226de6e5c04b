"""An index.json that is nearly right: an InputError of one line, or plain file names and counts that fit together."""

import json
import random

import pytest
from nearly import as_json, corpus, mutated, mutated_bytes, require_line

from petseg_lightning.data.shards import parse_index
from petseg_lightning.errors import InputError

SHARDS = [{"name": f"train-00000{i}.tar", "count": 3, "bytes": 10240} for i in range(2)]
WHOLE = {
    "generator": "petseg shard",
    "format": 1,
    "source": {"source": "OxfordPetDataModule", "root": "pets", "breeds": 4, "counts": {"train": 6}},
    "part_names": ["background", "pet"],
    "part_shares": [0.4, 0.6],
    "splits": {split: {"count": 6, "shards": SHARDS} for split in ("train", "val", "test")},
}


def require_handled(content: bytes) -> None:
    try:
        index = parse_index(content, "theirs")
    except InputError as error:
        require_line(error)
        return
    assert len(index["part_names"]) == len(index["part_shares"])
    for split in index["splits"].values():
        if isinstance(split, dict) and isinstance(split.get("shards"), list):
            names = [shard["name"] for shard in split["shards"]]
            assert not any("/" in name or name.startswith(".") or ":" in name for name in names)


@pytest.mark.parametrize("path", corpus("shard_index"), ids=lambda path: path.name)
def test_what_was_found(path):
    require_handled(path.read_bytes())


def run(number: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        require_handled(as_json(mutated(WHOLE, rng)) if rng.random() < 0.7 else mutated_bytes(as_json(WHOLE), rng))


def test_a_few():
    assert parse_index(as_json(WHOLE), "x") == json.loads(as_json(WHOLE))
    run(300, seed=0)


@pytest.mark.slow
def test_many():
    run(10_000, seed=1)
