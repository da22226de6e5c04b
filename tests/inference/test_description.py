"""What a model's file says of itself, checked: the allow-lists are those of the classes, and bounds hold."""

import inspect
from importlib import import_module
from typing import get_type_hints

import pytest

from petseg_lightning.conf_tree import config_dir
from petseg_lightning.config import compose
from petseg_lightning.data.datamodule import LoaderOptions
from petseg_lightning.errors import InputError
from petseg_lightning.inference.description import DATA, network_class, read_description, stored_data
from petseg_lightning.models.smp import SMP


@pytest.fixture
def description(make_module):
    return make_module().description


@pytest.mark.parametrize("target", DATA)
def test_a_file_may_give_the_arguments_that_the_class_has(target):
    module, _, name = target.rpartition(".")
    constructor = inspect.signature(getattr(import_module(module), name).__init__).parameters
    known = {*constructor, *get_type_hints(LoaderOptions)} - {"self", "options", "transforms", "seed"}
    assert set(DATA[target]) == known


def test_every_data_set_of_the_configuration_may_be_named():
    chosen = [file.stem for file in (config_dir() / "data").glob("[!_]*.yaml") if file.stem != "checkpoint"]
    assert {compose("train", [f"data={name}"]).data["_target_"] for name in chosen} == set(DATA)


def test_every_model_of_the_configuration_may_be_named():
    for file in (config_dir() / "model").glob("*.yaml"):
        target = compose("train", [f"model={file.stem}"]).model["_target_"]
        assert network_class(target).__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    "target", ["os.system", "petseg_lightning.models", "petseg_lightning.models.smp.nn.Module", None, 3, "x" * 10**6]
)
def test_what_is_no_network_of_ours_is_not_imported(target):
    with pytest.raises(InputError, match=r"only models of petseg_lightning\.models are built from a file") as error:
        network_class(target)
    assert len(str(error.value)) < 300


def test_pretrained_weights_are_never_a_files_wish(description):
    description["model"] = {"_target_": f"{SMP.__module__}.SMP", "encoder": "resnet18", "encoder_weights": "pretrained"}
    assert "encoder_weights" not in read_description(description, "a.ckpt")["model"]


@pytest.mark.parametrize(
    "key", ["checkpoint_path", "pretrained", "cache_dir", "encoder_weights", "encoder_name", "hub"]
)
def test_options_that_read_files_are_none(description, key):
    description["model"] = {"_target_": f"{SMP.__module__}.SMP", "options": {key: "x"}}
    with pytest.raises(InputError, match=rf"model\.options\.{key} is none that a file may give"):
        read_description(description, "a.ckpt")


def test_usual_options_may_be_given(description):
    options = {"decoder_channels": [64, 32], "encoder_depth": 3, "drop_path_rate": 0.1, "img_size": 224}
    description["model"] = {"_target_": f"{SMP.__module__}.SMP", "options": options}
    assert read_description(description, "a.ckpt")["model"]["options"] == options


def test_all_that_is_wrong_is_in_one_line(description):
    description["temperature"] = -1
    description["preprocessing"]["image_size"] = 10**5
    description["data"]["root"] = "${oc.env:HOME}"
    with pytest.raises(InputError) as error:
        read_description(description, "their.ckpt")
    assert str(error.value) == (
        "their.ckpt does not fit this version of petseg_lightning (data.root=${oc.env:HOME} must be a value, not the "
        "place of one; preprocessing.image_size=100000 must be a whole number from 8 to 8192; temperature=-1 must be a "
        "number from 0.001 to 1000); get it again, or use the version that wrote it (1.0)"
    )


def test_the_users_root_goes_with_the_files_own_numbers(description, tmp_path):
    description["data"] |= {"val_fraction": 0.25, "cache_dir": "/theirs", "num_workers": 64, "download": True}
    data = stored_data(description, {"root": str(tmp_path), "batch_size": None})
    assert (data["root"], data["val_fraction"], data["download"]) == (str(tmp_path), 0.25, False)
    assert not {"cache_dir", "num_workers"} & data.keys()
    assert data["image_size"] == description["preprocessing"]["image_size"]


def test_a_batch_of_a_file_is_no_larger_than_memory(description, tmp_path):
    description["data"] |= {"root": str(tmp_path), "batch_size": 10**6}
    description["preprocessing"]["image_size"] = 4096
    assert stored_data(description, {})["batch_size"] == 1
    assert stored_data(description, {"batch_size": 7})["batch_size"] == 7
