"""Descriptions that are nearly right: an InputError of one line, or plain values that a network is built from."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nearly import as_json, corpus, mutated, mutated_bytes, require_line

from petseg_lightning.data.targets import pet_target
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import build_network
from petseg_lightning.inference.description import DATA, read_description, stored_data, target_of
from petseg_lightning.plain_files import parse_json, require_plain

PETS = pet_target("trimap")
WHOLE = {
    "version": "0.1.0",
    "model": {
        "_target_": "petseg_lightning.models.unet.UNet",
        **{"base_channels": 4, "depth": 2, "last_channels": 3, "skip_connections": True},
    },
    "target": {key: list(value) if isinstance(value, tuple) else value for key, value in vars(PETS).items()},
    "preprocessing": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "image_size": 32},
    "data": {
        "_target_": "petseg_lightning.data.pets.OxfordPetDataModule",
        **{
            "root": "/nowhere/pets",
            "image_size": 32,
            "batch_size": 4,
            "val_fraction": 0.2,
            "num_folds": None,
            "fold": 0,
        },
        **{"cache": "disk", "cache_dir": None, "target": "trimap", "border": None, "download": True},
    },
    "compute": {"precision": "32-true", "channels_last": False, "compile": False},
    "temperature": 0.8,
    "forecast": {"pictures": 30, "slope": 0.9, "intercept": 0.1, "errors": [-1.0, -0.2, 0.3, 1.1]},
    "export": {"precision": "fp32", "input": "images", "output": "logits"},
}
OTHER_DATA = [
    {"_target_": name, "root": root, **more}
    for name, more in zip(
        DATA,
        (
            {},
            {"num_trainval": 3},
            {"shuffle_buffer": 5},
            {"class_names": ["a", "b"], "palette": [[0, 0, 0], [1, 2, 3]]},
        ),
        strict=True,
    )
    for root in ("pets", "https://host/shards")
]
SMP = {
    "_target_": "petseg_lightning.models.smp.SMP",
    "arch": "Unet",
    "encoder": "resnet18",
    "options": {"encoder_depth": 3},
}


def require_handled(content) -> None:
    try:
        description = read_description(content, "theirs.ckpt")
    except InputError as error:
        require_line(error)
        return
    require_plain(description)
    text = json.dumps(description, allow_nan=False)
    assert "${" not in text
    assert len(re.findall(r'"_\w+":', text)) == 2
    target = target_of(description)
    assert description["model"]["_target_"].startswith("petseg_lightning.models.")
    if "UNet" in description["model"]["_target_"] and description["model"].get("base_channels", 0) < 16:
        build_network(description["model"], len(target.class_names))
    try:
        data = stored_data(description, {"root": "/mine"} if len(text) % 2 else {})
    except InputError as error:
        require_line(error)
        return
    assert data["_target_"] in DATA
    assert data.get("download", False) is False
    assert data.get("draw", False) is False


def examples(number: int, seed: int):
    rng = random.Random(seed)
    starts = [WHOLE, *({**WHOLE, "data": data} for data in OTHER_DATA), {**WHOLE, "model": SMP}]
    for _ in range(number):
        yield mutated(rng.choice(starts), rng)


@pytest.mark.parametrize("path", corpus("model_description"), ids=lambda path: path.name)
def test_what_was_found(path):
    try:
        content = parse_json(path.read_bytes().decode("utf-8", "replace"), path.name)
    except InputError:
        return
    require_handled(content)


def test_a_few():
    require_handled(WHOLE)
    assert read_description(WHOLE, "a") == WHOLE
    for content in examples(300, seed=0):
        require_handled(content)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = [f"{section}.{key}" for section, node in WHOLE.items() if isinstance(node, dict) for key in node] + [*WHOLE]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(key=st.sampled_from(KEYS), value=PLAIN)
def test_any_value_of_any_key(key, value):
    content = json.loads(json.dumps(WHOLE))
    section, _, name = key.rpartition(".")
    (content[section] if section else content)[name] = value
    require_handled(content)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(PLAIN)
def test_any_plain_value(content):
    require_handled(content)


@pytest.mark.slow
def test_many():
    for content in examples(25_000, seed=1):
        require_handled(content)


@pytest.mark.slow
def test_many_as_bytes():
    """Of a bundle's config.json or of an ONNX file's metadata."""
    rng = random.Random(2)
    for _ in range(10_000):
        text = mutated_bytes(as_json(WHOLE), rng).decode("utf-8", "replace")
        try:
            content = parse_json(text, "config.json")
        except InputError as error:
            require_line(error)
            continue
        require_handled(content)
