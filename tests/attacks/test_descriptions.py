"""A model from somebody else: whatever its file says, nothing of it runs, resolves, is written or is downloaded."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.segmenter import CHECKPOINT_KEY

READERS = ("predict", "evaluate", "export", "train", "benchmark")
PETS = "petseg_lightning.data.pets.OxfordPetDataModule"
SYNTHETIC = "petseg_lightning.data.synthetic.SyntheticPetDataModule"
FOLDER = "petseg_lightning.data.folder.FolderDataModule"
STREAM = "petseg_lightning.data.stream.StreamDataModule"
UNET = "petseg_lightning.models.unet.UNet"


@pytest.fixture
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "tom.png"
    Image.effect_noise((40, 30), 80).convert("RGB").save(path)
    return path


@pytest.fixture
def overrides(whole, picture):
    """(door, model) -> the overrides with which the door reads the model."""

    def of(door: str, model: Path, *more: str) -> list[str]:
        return {
            "predict": [f"ckpt={model}", f"source={picture}"],
            "evaluate": [f"ckpt={model}", "trainer=cpu", "~callbacks.progress_bar", *more],
            "export": [f"ckpt={model}", "out=exported", *more],
            "train": [
                *(f"ckpt_path={model}", "data.image_size=32", "data.num_workers=0", f"data.root={whole / 'pets'}"),
                *("model.base_channels=2", "model.depth=1", "trainer=cpu", "trainer.max_epochs=2"),
                *("~callbacks.progress_bar", "~callbacks.model_summary", "data.val_fraction=0.3"),
            ],
            "benchmark": ["mode=inference", f"ckpt={model}", "backends=[onnx]", "precisions=[fp32]", "rounds=1"],
        }[door]

    return of


HOSTILE = {
    "a function as data": [("data._target_", "sympy.sympify"), ("data.a", "__import__('os').system('touch executed')")],
    "a script as data": [("data._target_", "torch.utils.collect_env.run"), ("data.command", "touch executed")],
    "our own function as data": [
        ("data", {"_target_": "petseg_lightning.files.write_text", "path": "executed", "text": "x"})
    ],
    "our own abstract class as data": [("data._target_", "petseg_lightning.data.datamodule.SegmentationDataModule")],
    "a shell in the root": [("data", {"_target_": STREAM, "root": "pipe:touch executed; echo ://"})],
    "a quote in the root": [("data", {"_target_": STREAM, "root": "http://127.0.0.1:9/'; touch executed; '"})],
    "a file address": [("data", {"_target_": STREAM, "root": "file:///etc"})],
    "a secret in the root": [("data.root", "${oc.env:PETSEG_SECRET}")],
    "a secret in a list": [("data.cache_dir", ["${oc.env:PETSEG_SECRET}"])],
    "a secret in a name": [("target.label", "${oc.env:PETSEG_SECRET}")],
    "a secret in a key": [("data.${oc.env:PETSEG_SECRET}", 1)],
    "a secret in the version": [("version", "${oc.env:PETSEG_SECRET}")],
    "a nested target": [("data.border", {"_target_": "os.system", "command": "touch executed"})],
    "a nested target in a list": [("data.palette", [{"_target_": "os.mkdir", "path": "executed"}])],
    "a partial": [("data._partial_", True)],
    "arguments by place": [("data._args_", ["executed"])],
    "transforms": [("data.transforms", [])],
    "a system call as model": [("model", {"_target_": "os.system", "command": "touch executed"})],
    "an import as model": [("model._target_", "petseg_lightning.models.smp.nn.Module")],
    "what a model's module imports": [("model._target_", "petseg_lightning.models.encoder_weights.find_spec")],
    "a part of a model": [("model._target_", "petseg_lightning.models.blocks.ConvBlock")],
    "a nested target in the model": [("model.last_channels", {"_target_": "os.mkdir", "path": "executed"})],
    "a file for timm": [
        ("model", {"_target_": "petseg_lightning.models.smp.SMP", "options": {"checkpoint_path": "/tmp/x.pth"}})
    ],
    "weights for timm": [("model", {"_target_": "petseg_lightning.models.smp.SMP", "options": {"pretrained": True}})],
    "a hub's encoder": [("model", {"_target_": "petseg_lightning.models.smp.SMP", "encoder": "hf-hub:somebody/model"})],
    "a huge picture": [("preprocessing.image_size", 10**5)],
    "a negative picture": [("preprocessing.image_size", -1)],
    "a picture in words": [("preprocessing.image_size", "big")],
    "a picture that is true": [("preprocessing.image_size", True)],
    "a temperature of 0": [("temperature", 0)],
    "a temperature of NaN": [("temperature", float("nan"))],
    "a temperature in words": [("temperature", "warm")],
    "two means": [("preprocessing.mean", [0.5, 0.5])],
    "an infinite mean": [("preprocessing.mean", [0.5, 0.5, float("inf")])],
    "a mean in words": [("preprocessing.mean", "0.5")],
    "no deviation": [("preprocessing.std", [0.0, 0.2, 0.2])],
    "a huge number": [("preprocessing.mean", [0.5, 0.5, 10**400])],
    "a network of 100 GB": [("model.base_channels", 100_000)],
    "a network of no size at all": [("model.base_channels", 2**62)],
    "a deep network": [("model.depth", 60)],
    "a network of half a channel": [("model.base_channels", 2.5)],
    "no classes": [("target.class_names", [])],
    "one class twice": [("target.class_names", ["pet", "pet", "border"])],
    "a class with a sign for the terminal": [("target.class_names", ["pet", "\x1b[2J", "border"])],
    "300 classes": [("target.class_names", [f"c{i}" for i in range(300)])],
    "parts of classes that are not there": [("target.part_to_class", [1, 0, 2, 0, 7])],
    "fewer parts": [("target.part_to_class", [1, 0])],
    "no target": [("target", {})],
    "a list for a target": [("target", [])],
    "no model": [("model", None)],
    "a precision of its own": [("compute.precision", "64-imaginary")],
    "a forecast of nothing": [("forecast", {"pictures": 3})],
    "a forecast in words": [("forecast", {"pictures": 30, "slope": "1", "intercept": 0.0, "errors": [0.0, 1.0]})],
    "a list of itself": None,
}


TRAINED_ON_OTHERS = {
    "a function as data",
    "a script as data",
    "our own function as data",
    "our own abstract class as data",
}
THROUGH_COMMANDS = {"a function as data", "a shell in the root", "a secret in the root", "a network of 100 GB"}


def spoilt(name, description, checkpoint) -> Path:
    if HOSTILE[name] is not None:
        return description(*HOSTILE[name])
    endless: list = []
    endless.append(endless)
    return checkpoint(lambda contents: contents[CHECKPOINT_KEY].update(data=endless))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_description_is_refused(description, checkpoint, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = spoilt(name, description, checkpoint)
    with pytest.raises(InputError, match=rf"{path}.*(must|is no|does not fit|asks for|it has|holds a)") as error:
        load_module(path)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)
    assert [one.name for one in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("door", READERS)
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in THROUGH_COMMANDS else pytest.mark.slow) for one in HOSTILE]
)
def test_a_hostile_description_is_one_line_of_every_command(
    refused, description, checkpoint, overrides, whole, door, name
):
    path = spoilt(name, description, checkpoint)
    if door == "train" and name in TRAINED_ON_OTHERS:
        return  # it has data of its own
    assert "best.ckpt" in refused(door, *overrides(door, path))
    if door == "evaluate":
        refused(door, *overrides(door, path, f"data.root={whole / 'pets'}"))


def test_pets_are_not_drawn_where_a_file_says(refused, command, description, overrides, run, whole, tmp_path):
    there = run.parent / "to_be_drawn"
    drawn = {"_target_": SYNTHETIC, "num_trainval": 30, "num_test": 10}
    path = description(("data", {**drawn, "root": str(there)}))
    assert "are not in" in refused("evaluate", *overrides("evaluate", path))
    there.mkdir()
    assert "no Oxford-IIIT Pet in" in refused("evaluate", *overrides("evaluate", path))
    (there / "own").mkdir()  # of the user, who says data.root=
    assert "no Oxford-IIIT Pet in" in refused("evaluate", *overrides("evaluate", path, f"data.root={there / 'own'}"))
    assert list(there.iterdir()) == [there / "own"]
    path = description(("data.num_trainval", 3), ("data.root", str(whole / "pets")))  # others are there
    code, errors = command("evaluate", *overrides("evaluate", path))
    assert code == 0, errors


def test_nothing_is_downloaded_and_no_address_is_called_for_a_file(
    refused, description, overrides, tmp_path, monkeypatch
):
    def connect(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    path = description(("data.download", True), ("data.root", str(tmp_path / "theirs")))
    assert "no Oxford-IIIT Pet in" in refused("evaluate", *overrides("evaluate", path))
    path = description(("data", {"_target_": STREAM, "root": "http://127.0.0.1:9/shards"}))
    line = refused("evaluate", *overrides("evaluate", path))
    assert "http://127.0.0.1:9/shards, and no address is called for it; give the folder of the data" in line
    path = description(("model", {"_target_": "petseg_lightning.models.smp.SMP", "encoder_weights": "pretrained"}))
    assert "does not fit" in refused("predict", *overrides("predict", path))


def test_what_a_file_says_of_folders_is_looked_at_only(refused, description, overrides, run):
    names = ["pet", "background", "border"]
    data = {"_target_": FOLDER, "root": "/", "class_names": names}
    line = refused("evaluate", *overrides("evaluate", description(("data", data))))
    assert "/ holds neither images/ and masks/ nor train/ and test/" in line
    for lists in ({"trainval": "/proc/self/environ", "test": "a"}, {"trainval": "../../x", "test": "a"}):
        path = description(("data", {**data, "root": str(run), "split_lists": lists}))
        assert "must be null, or paths below data.root" in refused("evaluate", *overrides("evaluate", path))


def test_scores_from_a_file_alone_leave_nothing_beside_its_data(command, run, overrides, whole):
    for more in ([], ["data.cache=disk"]):
        code, errors = command("evaluate", *overrides("evaluate", run, *more))
        assert code == 0, errors
    assert not (whole / "pets" / ".petseg_cache").exists()


class Bomb:
    def __reduce__(self):
        return os.system, ("touch executed",)


class Balloon:
    def __init__(self, made, *arguments):
        self.made, self.arguments = made, arguments

    def __reduce__(self):
        return self.made, self.arguments


def rewritten(path: Path, change, compression: int = zipfile.ZIP_STORED) -> None:
    """The zip again, with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    change(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def spoil_pickle(entries: dict[str, bytes], content: bytes) -> None:
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    entries[name] = content


FILES = {
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "a pickle in a zip": lambda path: rewritten(path, lambda all_: spoil_pickle(all_, pickle.dumps(Bomb(), 2))),
    "a newer pickle in a zip": lambda path: rewritten(path, lambda all_: spoil_pickle(all_, pickle.dumps(Bomb(), 4))),
    "a balloon of bytes": lambda path: rewritten(
        path, lambda all_: spoil_pickle(all_, pickle.dumps(Balloon(bytearray, 10**11), 2))
    ),
    "a balloon of numbers": lambda path: rewritten(
        path, lambda all_: spoil_pickle(all_, pickle.dumps(Balloon(torch.FloatStorage, 10**11), 2))
    ),
    "a balloon of a tensor": lambda path: rewritten(
        path, lambda all_: spoil_pickle(all_, pickle.dumps(Balloon(torch.Tensor, 10**6, 10**6), 2))
    ),
    "a deflated zip": lambda path: rewritten(
        path, lambda all_: all_.update({"archive/data/0": bytes(2**28)}), zipfile.ZIP_DEFLATED
    ),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nothing": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(10**6)),
    "a hundred GB of nothing": lambda path: os.truncate(path, 10**11),
    "a list": lambda path: torch.save([1, 2], path),
    "a dict without a description": lambda path: torch.save({"state_dict": {}}, path),
    "a description without weights": lambda path: torch.save({CHECKPOINT_KEY: {}, "state_dict": []}, path),
    "a description of text": lambda path: torch.save({CHECKPOINT_KEY: "x", "state_dict": {}}, path),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a million names": lambda path: path.write_bytes(
        path.read_bytes().replace(b"PK\x05\x06", b"PK\x01\x02")
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2**25, 0, 0)
    ),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_something_else_is_one_line(refused, overrides, run, name):
    path = run / "checkpoints" / "best.ckpt"
    FILES[name](path)
    assert "checkpoint" in refused("predict", *overrides("predict", path))


def first_weight(contents: dict) -> str:
    return next(name for name, tensor in contents["state_dict"].items() if tensor.ndim == 4)


WEIGHTS = {  # of the first convolution, by name
    "NaN": lambda state, name: state[name].fill_(float("nan")),
    "infinity": lambda state, name: state[name].fill_(float("inf")),
    "numbers that become infinite": lambda state, name: state[name].fill_(3e38),
    "a negative variance": lambda state, name: state["network.encoder.stages.0.1.running_var"].fill_(-1),  # noqa: ARG005
    "one value for all": lambda state, name: state.update({name: torch.zeros(1).expand(10**6, 10**5)}),
    "another shape": lambda state, name: state.update({name: state[name][:1]}),
    "none": lambda state, name: state.pop(name),
    "more": lambda state, name: state.update({f"{name}.more": torch.zeros(3)}),
    "words": lambda state, name: state.update({name: "words"}),
    "sparse numbers": lambda state, name: state.update({name: torch.zeros(3, 3).to_sparse()}),
    "a number for a name": lambda state, name: state.update({3: state[name]}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none_are_one_line(refused, overrides, checkpoint, name):
    def change(contents: dict) -> None:
        WEIGHTS[name](contents["state_dict"], first_weight(contents))

    assert "best.ckpt" in refused("predict", *overrides("predict", checkpoint(change)))


def test_a_network_that_would_take_100_gb_takes_no_memory(description, whole, picture, tmp_path):
    """In a process of its own: with tensors of one value each, as wide as the network wants them."""
    wide = {"_target_": UNET, "base_channels": 20_000, "depth": 2}
    path = description(("model", wide))
    code = (
        "import resource, sys, torch\n"
        "from petseg_lightning.inference.checkpoint import build_network\n"
        "from petseg_lightning.inference.predictor import Predictor\n"
        f"contents = torch.load({str(path)!r}, weights_only=True)\n"
        f"with torch.device('meta'): network = build_network({wide!r}, 3)\n"
        "one = torch.zeros(())\n"
        "state = {f'network.{k}': one.to(v.dtype).expand(v.shape) for k, v in network.state_dict().items()}\n"
        f"torch.save({{**contents, 'state_dict': state}}, {str(path)!r})\n"
        "try:\n"
        f"    Predictor.load({str(path)!r})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    line, mebibytes = done.stdout.splitlines()
    assert "its tensors have more values than the file" in line
    assert int(mebibytes) < 2048
