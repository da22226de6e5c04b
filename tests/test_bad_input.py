"""What a user can get wrong, through the doors: one line that says what and how to mend it, and nothing left."""

import importlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning import scoring, training
from petseg_lightning.config import compose
from petseg_lightning.data.synthetic import write_synthetic_pets
from petseg_lightning.training import build_datamodule, build_module

UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # Python's own choice
SMALL = (
    "data.image_size=32",
    "data.num_workers=0",
    "model.base_channels=4",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "~callbacks.progress_bar",
    "+trainer.enable_progress_bar=false",
)


@pytest.fixture
def refusal(monkeypatch, tmp_path, capfd):
    """(door, overrides) -> the one line with which it ends; the run folder is gone or was never made."""
    folder = tmp_path / "working_folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # else the door leaves it set
    monkeypatch.delenv("PETSEG_TRACEBACK", raising=False)

    def run(door: str, *overrides: str, leaves: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", [door, *overrides])
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("default")
            for category in UNSEEN:
                warnings.simplefilter("ignore", category)
            with pytest.raises(SystemExit) as end:
                importlib.import_module(f"petseg_lightning.{door}").main()
        assert [str(warning.message) for warning in shown] == []
        assert end.value.code in (1, 2)
        if not leaves:
            assert [path for path in folder.rglob("*") if path.is_file() or path.parent.name == "runs"] == []
        return the_line(capfd.readouterr().err)

    level = logging.root.level
    yield run
    logging.root.setLevel(level)
    for handler in [h for h in logging.root.handlers if type(h) is logging.StreamHandler]:
        logging.root.removeHandler(handler)  # Hydra's: it writes to the stdout of this test


def the_line(stderr: str) -> str:
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write_synthetic_pets(root, num_trainval=28, num_test=14, picture_size=48, seed=0)
    return root


@pytest.fixture
def pets(drawn, tmp_path):
    """The folder of a data set of pets, to be damaged."""
    return Path(shutil.copytree(drawn, tmp_path / "data")) / "oxford-iiit-pet"


@pytest.fixture(scope="module")
def checkpoint(drawn, tmp_path_factory):
    """A checkpoint of an untrained model of pet, background and border."""
    cfg = compose("train", ["data=oxford_pet", f"data.root={drawn}", *SMALL], output_dir="unused")
    module = build_module(cfg, build_datamodule(cfg))
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    torch.save({"epoch": 0, "state_dict": module.state_dict(), "petseg_lightning": module.description}, path)
    return path


def names(pets: Path, split: str) -> list[str]:
    lines = (pets / "annotations" / f"{split}.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(
    ("door", "override", "parts"),
    [
        ("train", "trainer.max_epoch=3", ("trainer.max_epoch", "trainer.max_epochs")),
        ("train", "imgsz=64", ("imgsz", "data.image_size")),
        ("train", "model=unett", ("unett", "did you mean model=unet?", "fcn")),
        ("train", "modell=unet", ("modell", "model")),
        ("train", "data.image_size=0", ("data.image_size=0", "8 to 8192")),
        ("train", "data.val_fraction=1.5", ("data.val_fraction=1.5", "between 0 and 1")),
        ("evaluate", "split=tset", ("split=tset", "train, val or test")),
        ("evaluate", "data=oxfrod_pet", ("oxfrod_pet", "did you mean data=oxford_pet?")),
        ("evaluate", "split=test", ("ckpt is not given", "add ckpt=")),
        ("predict", "tta=flipp", ("tta=flipp", "none, flip or multiscale")),
        ("predict", "sorce=photos", ("sorce", "did you mean source?")),
        ("export", "licence=mit", ("licence", "did you mean license?")),
    ],
)
def test_wrong_settings(refusal, door, override, parts):
    line = refusal(door, override)
    assert all(part in line for part in parts), line


def test_no_data_and_no_download(refusal, tmp_path):
    line = refusal("train", f"data.root={tmp_path}/nowhere", "data.download=false", *SMALL)
    assert f"{tmp_path}/nowhere/oxford-iiit-pet" in line
    assert "data.download=false" in line
    assert "data.root=" in line
    assert "data=synthetic" in line


def test_no_data_and_no_network(refusal, tmp_path, monkeypatch):
    asked = []

    def urlopen(url, *args, timeout, **kwargs):
        asked.append(timeout)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    line = refusal("train", f"data.root={tmp_path}/nowhere", *SMALL)
    assert f"{tmp_path}/nowhere/oxford-iiit-pet" in line
    assert "cannot be downloaded" in line
    assert "Name or service not known" in line
    assert "data.root=<folder>" in line
    assert "data=synthetic" in line
    assert sum(asked) < 10  # seconds
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", ["train", "evaluate", "benchmark"])
def test_a_gpu_that_is_not_there(refusal, drawn, checkpoint, monkeypatch, mode):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for module in (training, scoring):
        monkeypatch.setattr(module, "build_datamodule", lambda _: pytest.fail("the data was read first"))
    own = [f"ckpt={checkpoint}", "data=oxford_pet"] if mode == "evaluate" else []
    line = refusal(mode, f"data.root={drawn}", "trainer=gpu", *own)
    assert line.startswith("error: trainer.accelerator=gpu: torch finds no such device here; ")
    assert "trainer=cpu" in line


def test_class_weights_of_another_number_are_met_before_anything_is_measured(refusal, drawn, monkeypatch):
    monkeypatch.setattr(training, "choose_compute", lambda *_: pytest.fail("it was measured first"))
    line = refusal("train", f"data.root={drawn}", "loss.class_weights=[1,2]", *SMALL)
    assert "loss.class_weights=[1.0, 2.0] has 2 weights for 3 classes" in line


CROP = "augmentation.transforms=[{_target_:albumentations.RandomCrop,height:99,width:99,p:1.0}]"
SMALLER = "augmentation.transforms=[{_target_:albumentations.Resize,height:8,width:8,p:1.0}]"


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ("+optimizer.foo=1", ("error: optimizer: ", "foo", "PETSEG_TRACEBACK=1")),
        ("+optimizer.betas=3", ("error: optimizer: ", "not subscriptable")),
        ("optimizer=muon +optimizer.betas=3", ("error: optimizer: ", "unpack")),  # it is met at the first step
        ("optimizer=sgd optimizer.momentum=0", ("error: optimizer: ", "requires a momentum")),
        ("+model.foo=1", ("error: model: ", "foo")),
        ("model._target_=petseg_lightning.models.nowhere.Net", ("nowhere.Net", "only models of petseg_lightning")),
        ("loss=cross_entropy_dice loss.terms.dice=null", ("error: loss: ",)),
        ("loss._target_=builtins.dict", ("_target_=builtins.dict makes a dict, where a Module is needed",)),
        ("+callbacks.x={_target_:builtins.dict}", ("makes a dict, where a Callback is needed",)),
        ("+logger.x={_target_:builtins.dict}", ("makes a dict, where a Logger is needed",)),
        ("trainer._target_=builtins.dict", ("makes a dict, where a Trainer is needed",)),
        ("data._target_=builtins.dict", ("makes a dict, where a SegmentationDataModule is needed",)),
        ("trainer.strategy=nowhere", ("error: trainer: ", "nowhere")),
        (CROP, ("error: augmentation.transforms do not fit the pictures: ", "(99, 99)")),
        (SMALLER, ("error: augmentation.transforms make 8x8x3 of a picture, which must stay as large as it was",)),
    ],
)
def test_settings_of_which_nothing_can_be_made(refusal, drawn, settings, parts):
    line = refusal("train", f"data.root={drawn}", *SMALL, *settings.split(), leaves=settings in (CROP, SMALLER))
    assert all(part in line for part in parts), line


def truncate(image: Path, mask: Path) -> Path:
    image.write_bytes(image.read_bytes()[:700])
    return image


def resize_mask(image: Path, mask: Path) -> Path:
    Image.open(mask).resize((20, 30), Image.Resampling.NEAREST).save(mask)
    return mask


def class_7(image: Path, mask: Path) -> Path:
    pixels = np.array(Image.open(mask))
    pixels[3, 5] = 7
    Image.fromarray(pixels).save(mask)
    return mask


def remove(image: Path, mask: Path) -> Path:
    mask.unlink()
    return mask


DAMAGES = [
    (truncate, ("cannot be read as a picture", "truncated", "repair or remove")),
    (resize_mask, ("20x30", "must be of one size")),
    (class_7, ("holds 7", "1, 2, 3", "repair or remove")),
    (remove, ("missing", "restore them")),
]


@pytest.mark.parametrize("split", ["trainval", "test"])
@pytest.mark.parametrize(("damage", "parts"), DAMAGES)
def test_damaged_data_are_named_before_the_training(refusal, pets, damage, parts, split):
    name = names(pets, split)[4]
    file = damage(pets / "images" / f"{name}.jpg", pets / "annotations/trimaps" / f"{name}.png")
    line = refusal("train", f"data.root={pets.parent}", *SMALL)
    assert all(part in line for part in (str(file), *parts)), line


@pytest.mark.parametrize(("damage", "parts"), DAMAGES)
def test_damaged_data_are_named_by_evaluate(refusal, pets, checkpoint, damage, parts):
    name = names(pets, "test")[4]
    file = damage(pets / "images" / f"{name}.jpg", pets / "annotations/trimaps" / f"{name}.png")
    line = refusal("evaluate", f"ckpt={checkpoint}", f"data.root={pets.parent}", "trainer=cpu")
    assert all(part in line for part in (str(file), *parts)), line


def test_a_file_that_a_worker_cannot_read_is_named(refusal, pets):
    image = truncate(pets / "images" / f"{names(pets, 'trainval')[4]}.jpg", pets)
    several = ("data.cache=none", "data.num_workers=1")
    line = refusal("train", f"data.root={pets.parent}", *SMALL, *several, leaves=True)
    assert f"{image}: cannot be read as a picture" in line


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_an_empty_split(refusal, pets, split):
    (pets / "annotations" / f"{split}.txt").write_text("# name class species breed\n")
    line = refusal("train", f"data.root={pets.parent}", *SMALL)
    assert f"the {split.replace('trainval', 'train')} split of {pets.parent} has no pictures" in line
    assert "at least one" in line


def test_a_validation_split_that_rounds_to_nothing(refusal, drawn):
    line = refusal("train", f"data.root={drawn}", "data.val_fraction=0.01", *SMALL)
    assert f"the val split of {drawn} has no pictures" in line
    assert "data.val_fraction=0.01" in line


class Foreign:
    """An object that runs a program when it is read by a plain pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def text_file(path, trap):
    path.write_text("not a checkpoint\n")


def empty_file(path, trap):
    path.touch()


def plain_pickle(path, trap):
    path.write_bytes(pickle.dumps(Foreign(trap)))


def foreign_object(path, trap):
    torch.save({"state_dict": {}, "petseg_lightning": Foreign(trap)}, path)


def of_another_program(path, trap):
    torch.save({"epoch": 3, "state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": {}}, path)


def only_weights(path, trap):
    torch.save([torch.zeros(3)], path)


@pytest.mark.parametrize(
    "write", [text_file, empty_file, plain_pickle, foreign_object, of_another_program, only_weights]
)
@pytest.mark.parametrize("door", ["train", "evaluate"])
def test_a_file_that_is_no_checkpoint(refusal, drawn, tmp_path, door, write):
    path, trap = tmp_path / "some.ckpt", tmp_path / "executed"
    write(path, trap)
    settings = ("ckpt_path", (f"data.root={drawn}", *SMALL)) if door == "train" else ("ckpt", ("trainer=cpu",))
    line = refusal(door, f"{settings[0]}={path}", *settings[1])
    assert f"{path} is not a checkpoint of petseg_lightning" in line
    assert "give a .ckpt file that its training wrote" in line
    assert not trap.exists()


def test_half_a_checkpoint(refusal, checkpoint, tmp_path):
    half = tmp_path / "half.ckpt"
    half.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    assert f"{half} is not a checkpoint of petseg_lightning" in refusal("evaluate", f"ckpt={half}")


def test_no_checkpoint_where_it_is_said_to_be(refusal, tmp_path):
    for place, file in ((tmp_path / "x.ckpt",) * 2, (tmp_path, tmp_path / "checkpoints" / "best.ckpt")):
        line = refusal("evaluate", f"ckpt={place}")
        assert f"no checkpoint at {file}" in line
        assert "the folder of a training run" in line


def test_a_checkpoint_of_other_classes_than_the_data(refusal, checkpoint, pets):
    own = pets.parent / "own"
    for folder, ending, mode in (("images", "jpg", "RGB"), ("masks", "png", "L")):
        (own / folder).mkdir(parents=True)
        for number in range(9):
            Image.linear_gradient("L").point(lambda v: v // 128).convert(mode).save(own / folder / f"{number}.{ending}")
    data = ("data=folder", f"data.root={own}", "data.class_names=[lawn,sheep]")
    line = refusal("evaluate", f"ckpt={checkpoint}", *data, "trainer=cpu")
    assert "predicts pet, background, border, but the data has lawn, sheep" in line
    assert "data of its own classes" in line


def test_resuming_from_a_model_without_its_training(refusal, checkpoint, drawn):
    line = refusal("train", f"ckpt_path={checkpoint}", f"data.root={drawn}", *SMALL)
    assert f"{checkpoint} does not hold what a training goes on from; give a last.ckpt of petseg train" in line


@pytest.mark.parametrize("door", ["train", "evaluate"])
@pytest.mark.parametrize("setting", ["hydra.run.dir={}", "paths.log_dir={}"])
@pytest.mark.parametrize("place", ["file", "/proc/nowhere"])
def test_a_run_folder_that_cannot_be_written(refusal, checkpoint, tmp_path, door, setting, place):
    (tmp_path / "file").touch()  # a folder below it cannot be made, not even by root
    folder = tmp_path / place  # absolute as it is, or in tmp_path
    ckpt = [f"ckpt={checkpoint}"] if door == "evaluate" else []
    line = refusal(door, setting.format(folder / "x"), *ckpt)
    assert "the run folder cannot be written" in line
    assert str(folder) in line
    assert "paths.log_dir=<folder>" in line


@pytest.mark.parametrize(
    ("door", "override", "part"),
    [
        ("train", "trainer.max_epoch=3", "trainer.max_epochs"),
        ("evaluate", "ckpt={}", "is not a checkpoint"),
    ],
)
def test_in_a_process_of_its_own(tmp_path, door, override, part):
    text_file(tmp_path / "some.ckpt", None)
    command = [sys.executable, "-m", f"petseg_lightning.{door}", override.format(tmp_path / "some.ckpt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert part in the_line(done.stderr)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["some.ckpt"]
