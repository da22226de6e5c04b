"""Bundles and exports from somebody else, whose sums are right: whoever changes a file signs it again."""

import hashlib
import json
import os
import shutil
import struct
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from petseg_lightning.inference.bundle import HASHED, write_bundle
from petseg_lightning.inference.exported import FILES, runtime

PICTURE = Image.effect_noise((40, 30), 80).convert("RGB")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "tom.png"
    PICTURE.save(path)
    return path


@pytest.fixture
def bundle(make_module, tmp_path) -> Path:
    write_bundle(tmp_path / "theirs" / "run", make_module(temperature=1.5), PICTURE, "# card\n")
    return tmp_path / "theirs" / "run"


def sign(bundle: Path) -> None:
    digests = {}
    for name in HASHED:
        path = bundle / name
        regular = path.is_file() and path.stat().st_size < 2**30
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else 64 * "0"
    (bundle / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def edit(bundle: Path, **changes) -> None:
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(config | changes))


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def link(path: Path, place: str) -> None:
    path.unlink()
    path.symlink_to(place)


def golden(bundle: Path, tensor: torch.Tensor, name: str = "logits") -> None:
    save_file({name: tensor}, bundle / "golden.safetensors")


BUNDLES = {
    "a secret in its data": lambda one: edit(one, data={"_target_": "x.Y", "root": "${oc.env:PETSEG_SECRET}"}),
    "a function as data": lambda one: edit(one, data={"_target_": "os.system", "command": "touch executed"}),
    "a list": lambda one: replace(one / "config.json", b"[]"),
    "half a config": lambda one: replace(one / "config.json", b'{"format": 1, "model": {'),
    "a deep config": lambda one: replace(one / "config.json", b"[" * 200_000 + b"]" * 200_000),
    "a large config": lambda one: replace(one / "config.json", b'{"format": 1, "a": "' + b"x" * 2**22 + b'"}'),
    "a config in another code": lambda one: replace(one / "config.json", '{"a": "é"}'.encode("utf-16")),
    "a format that is true": lambda one: edit(one, format=True),
    "a format in words": lambda one: edit(one, format="1"),
    "a temperature without end": lambda one: edit(one, temperature=float("inf")),
    "a huge model": lambda one: edit(
        one, model={"_target_": "petseg_lightning.models.unet.UNet", "base_channels": 90_000, "depth": 6}
    ),
    "a golden sample of another shape": lambda one: golden(one, torch.zeros(3, 8, 8)),
    "a golden sample of another type": lambda one: golden(one, torch.zeros(3, 32, 32, dtype=torch.bool)),
    "a golden sample of NaN": lambda one: golden(one, torch.full((3, 32, 32), float("nan"))),
    "a golden sample of another name": lambda one: golden(one, torch.zeros(3, 32, 32), "others"),
    "a golden picture that is none": lambda one: replace(one / "golden.png", b"%!PS\n{ } loop"),
    "a golden picture of another size": lambda one: PICTURE.save(one / "golden.png"),
    "a pipe for a picture": lambda one: ((one / "golden.png").unlink(), os.mkfifo(one / "golden.png")),
    "a pipe for weights": lambda one: ((one / "model.safetensors").unlink(), os.mkfifo(one / "model.safetensors")),
    "a device for a config": lambda one: (
        (one / "config.json").unlink(),
        (one / "config.json").symlink_to("/dev/zero"),
    ),
    "the environment for a config": lambda one: (
        (one / "config.json").unlink(),
        (one / "config.json").symlink_to("/proc/self/environ"),
    ),
    "a header without end": lambda one: replace(one / "model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "weights of a hundred GB": lambda one: os.truncate(one / "model.safetensors", 10**11),
    "a pickle for weights": lambda one: replace(one / "model.safetensors", b"cos\nsystem\n(S'touch executed'\ntR."),
    "weights of NaN": lambda one: save_file(
        {name: tensor * float("nan") for name, tensor in load_file(one / "model.safetensors").items()},
        one / "model.safetensors",
    ),
    "no weights": lambda one: save_file({}, one / "model.safetensors"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_hostile_bundle_is_one_line(refused, bundle, source, name):
    BUNDLES[name](bundle)
    sign(bundle)
    assert "theirs/run" in refused("predict", f"ckpt={bundle}", f"source={source}")


@pytest.mark.parametrize("door", ["evaluate", "export"])
def test_every_command_reads_a_bundle_the_same_way(refused, bundle, whole, door):
    BUNDLES["a function as data"](bundle)
    sign(bundle)
    more = {
        "evaluate": ["trainer=cpu", "~callbacks.progress_bar", f"data.root={whole / 'pets'}"],
        "export": ["out=out"],
    }
    assert "must be one of this package's data" in refused(door, f"ckpt={bundle}", *more[door])


@pytest.mark.parametrize("content", ["", "x", "x  y\n", "0  ../../etc/passwd\n", "\x00", "a  b  c\n"])
def test_sums_of_something_else_are_one_line(refused, bundle, source, content):
    (bundle / "SHA256SUMS").write_text(content)
    assert "SHA256SUMS cannot be used" in refused("predict", f"ckpt={bundle}", f"source={source}")


@pytest.fixture(scope="module")
def exported(make_module, tmp_path_factory):
    """(format) -> the folder of an export in it, made once."""

    @cache
    def write(name: str) -> Path:
        pytest.importorskip({"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}[name])
        folder = tmp_path_factory.mktemp(name)
        runtime(name).save(make_module(temperature=1.5), folder / FILES[name])
        return folder

    return write


@pytest.fixture
def graph(exported, tmp_path):
    """(format) -> its file, in a folder of somebody else."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(exported(name), tmp_path / "theirs")) / FILES[name]

    return copy


def change_onnx(path: Path, change) -> None:
    import onnx

    model = onnx.load(path)
    change(model, onnx)
    path.write_bytes(model.SerializeToString())


def outside(model, onnx, location: str = "../../../../etc/passwd") -> None:
    one = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(one, location)
    one.data_location = onnx.TensorProto.EXTERNAL
    one.ClearField("raw_data")


def describe(model, **changes) -> None:
    (told,) = (entry for entry in model.metadata_props if entry.key == "petseg_lightning")
    told.value = json.dumps(json.loads(told.value) | changes)


def looped(model, onnx) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=body))


def balloon(model, onnx) -> None:
    shape = onnx.numpy_helper.from_array(__import__("numpy").array([2**34]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["shape"], ["balloon"]))


GRAPHS = {
    "no metadata": lambda model, _: model.ClearField("metadata_props"),
    "metadata of something else": lambda model, _: setattr(model.metadata_props[0], "value", "[1]"),
    "a secret in its data": lambda model, _: describe(model, data={"_target_": "x.Y", "a": "${oc.env:PETSEG_SECRET}"}),
    "a function as data": lambda model, _: describe(model, data={"_target_": "os.system", "command": "touch executed"}),
    "a temperature of NaN": lambda model, _: describe(model, temperature=float("nan")),
    "a huge picture": lambda model, _: describe(
        model, preprocessing={"mean": [0.5] * 3, "std": [0.2] * 3, "image_size": 10**5}
    ),
    "a temperature of 0": lambda model, _: describe(model, temperature=0),
    "other classes": lambda model, _: describe(
        model,
        target={
            "name": "own", "label": "own", "class_names": ["a", "b"], "part_names": ["a", "b"], "part_to_class": [0, 1]
        },
    ),
    "weights in another file": outside,
    "weights beside it": lambda model, onnx: outside(model, onnx, "weights.bin"),
    "a loop": looped,
    "a balloon": balloon,
    "an operator of its own": lambda model, onnx: model.graph.node.append(
        onnx.helper.make_node("Run", [], ["x"], domain="com.somebody")
    ),
    "another output": lambda model, _: setattr(model.graph.output[0], "name", "others"),
    "no nodes": lambda model, _: model.graph.ClearField("node"),
    "weights of NaN": lambda model, onnx: [
        one.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(one) * float("nan"), one.name))
        for one in model.graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 4
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_hostile_onnx_file_is_one_line(refused, graph, source, name):
    path = graph("onnx")
    change_onnx(path, GRAPHS[name])
    refused("predict", f"ckpt={path}", f"source={source}")


@pytest.mark.parametrize("name", ["onnx", "openvino"])
@pytest.mark.parametrize("spoil", ["half", "nothing", "pipe", "text"])
def test_a_damaged_export_is_one_line(refused, graph, source, name, spoil):
    path = graph(name)
    content = path.read_bytes()
    path.unlink()
    if spoil == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"half": content[: len(content) // 2], "nothing": b"", "text": b"<xml/>"}[spoil])
    refused("predict", f"ckpt={path}", f"source={source}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type="Convolution"', 'type="Loop"'),
        ('type="Convolution"', 'type="Extension"'),
        ("&quot;temperature&quot;: 1.5", "&quot;temperature&quot;: 0"),
        ("petseg_lightning.data.pets.OxfordPetDataModule", "os.system"),
        ('<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]>'),
        ('size="', 'size="9'),
    ],
)
def test_a_hostile_openvino_graph_is_one_line(refused, graph, source, old, new):
    path = graph("openvino")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refused("predict", f"ckpt={path}", f"source={source}")


def test_an_openvino_graph_without_its_weights_or_with_a_pipe_for_them(refused, graph, source):
    path = graph("openvino")
    path.with_suffix(".bin").unlink()
    refused("predict", f"ckpt={path}", f"source={source}")
    os.mkfifo(path.with_suffix(".bin"))
    refused("predict", f"ckpt={path}", f"source={source}")


@pytest.mark.parametrize("door", ["predict", "evaluate", "app"])
def test_a_torch_export_needs_the_users_word(refused, graph, source, door):
    path = graph("torch")
    more = {"predict": [f"source={source}"], "evaluate": ["trainer=cpu"], "app": ["port=0"]}[door]
    line = refused(door, f"ckpt={path}", *more)
    assert "such a file is a program" in line
    assert "trust_code=true" in line
