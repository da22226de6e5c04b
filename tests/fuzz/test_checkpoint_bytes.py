"""Checkpoints, bundles and ONNX files with a few other bytes: an InputError of one line, or the model."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from nearly import corpus, mutated_bytes, require_line
from PIL import Image

from petseg_lightning.errors import InputError
from petseg_lightning.inference.bundle import HASHED, write_bundle
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.inference.exported import runtime


@pytest.fixture(scope="module")
def models(make_module, tmp_path_factory) -> Path:
    """A folder with `bundle` and `model.onnx`."""
    folder = tmp_path_factory.mktemp("models")
    module = make_module(temperature=1.5)
    write_bundle(folder / "bundle", module, Image.new("RGB", (40, 40)), "")
    if pytest.importorskip("onnxruntime"):
        runtime("onnx").save(module, folder / "model.onnx")
    return folder


def require_handled(load, path: Path) -> None:
    try:
        load(path)
    except InputError as error:
        require_line(error)


@pytest.mark.parametrize("path", corpus("checkpoint_bytes"), ids=lambda path: path.name)
def test_what_was_found(path, tmp_path):
    shutil.copy(path, tmp_path / "a.ckpt")
    require_handled(load_module, tmp_path / "a.ckpt")


def checkpoints(path: Path, number: int, seed: int) -> None:
    rng, whole = random.Random(seed), path.read_bytes()
    pickled = whole.index(b"data.pkl"), whole.index(b"PK", whole.index(b"data.pkl"))
    for _ in range(number):
        if rng.random() < 0.7:  # in what is unpickled, without another length
            changed = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(*pickled)] = rng.randrange(256)
            path.write_bytes(changed)
        else:
            path.write_bytes(mutated_bytes(whole, rng))
        try:
            require_handled(load_module, path)
        except Exception:
            shutil.copy(path, path.with_suffix(".found"))
            raise


def bundles(folder: Path, number: int, seed: int) -> None:
    """Without their sums, which would notice everything."""
    from petseg_lightning.inference import bundle

    rng = random.Random(seed)
    contents = {name: (folder / name).read_bytes() for name in HASHED}
    for _ in range(number):
        name = rng.choice(HASHED)
        (folder / name).write_bytes(mutated_bytes(contents[name], rng))
        sums = "".join(f"{bundle.hashlib.sha256((folder / one).read_bytes()).hexdigest()}  {one}\n" for one in HASHED)
        (folder / bundle.SUMS).write_text(sums)
        require_handled(load_module, folder)
        (folder / name).write_bytes(contents[name])


def graphs(path: Path, number: int, seed: int) -> None:
    rng, whole = random.Random(seed), path.read_bytes()
    for _ in range(number):
        path.write_bytes(mutated_bytes(whole, rng))
        require_handled(lambda one: runtime("onnx").load(one, torch.device("cpu")), path)


def test_a_few(make_checkpoint, models, tmp_path):
    checkpoints(make_checkpoint(), 60, seed=0)
    bundles(Path(shutil.copytree(models / "bundle", tmp_path / "bundle")), 40, seed=0)
    graphs(Path(shutil.copy(models / "model.onnx", tmp_path)), 40, seed=0)


@pytest.mark.slow
def test_many(make_checkpoint, models, tmp_path):
    checkpoints(make_checkpoint(), 5_000, seed=1)
    bundles(Path(shutil.copytree(models / "bundle", tmp_path / "bundle")), 2_000, seed=1)
    graphs(Path(shutil.copy(models / "model.onnx", tmp_path)), 3_000, seed=1)
