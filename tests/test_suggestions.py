import pytest

from petseg_lightning import suggestions
from petseg_lightning.conf_tree import doors
from petseg_lightning.config import _of_same_kind, _valid_keys
from petseg_lightning.suggestions import HABITS, nearest_key, unknown_door, unknown_key, unknown_option

VALID = {door: _of_same_kind("", _valid_keys(door)) for door in doors()}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("trainer.maxepochs", "trainer.max_epochs"),
        ("max_epochs", "trainer.max_epochs"),
        ("base_channels", "model.base_channels"),
        ("optimiser.lr", "optimizer.lr"),
        ("data.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("image_size", "data.image_size"),
        ("batch_size", "data.batch_size"),
        ("num_workers", "data.num_workers"),
        ("device", "trainer.devices"),
        ("devices", "trainer.devices"),
        ("modell", "model"),
        ("modle", "model"),
        ("experiement", "experiment"),
        ("ckptpath", "ckpt_path"),
        ("val_fraction", "data.val_fraction"),
        ("precision", "compute.precision"),
        ("zzzzzz", None),
    ],
)
def test_a_key_is_found_by_its_path_or_by_its_last_part(key, meant):
    assert nearest_key(key, VALID["train"]) == meant


@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_leads_to_keys_that_exist_and_that_likeness_does_not_find(habit, monkeypatch):
    for door in VALID:
        expected = next((key for key in HABITS[habit] if key in VALID[door]), None)
        if expected:
            assert nearest_key(habit, VALID[door]) == expected
            assert nearest_key(f"train.{habit}", VALID[door]) == expected
    assert all(any(key in valid for valid in VALID.values()) for key in HABITS[habit])
    monkeypatch.setattr(suggestions, "HABITS", {})
    assert any(nearest_key(habit, VALID[door]) not in HABITS[habit] for door in ("train", "evaluate"))


@pytest.mark.parametrize(
    "habit", ["epochs", "imgsz", "img_size", "batch", "lr0", "gpus", "workers", "resume", "weights"]
)
def test_the_common_habits_of_other_tools_are_understood(habit):
    meant = {
        "epochs": "trainer.max_epochs",
        "imgsz": "data.image_size",
        "img_size": "data.image_size",
        "batch": "data.batch_size",
        "lr0": "optimizer.lr",
        "gpus": "trainer.devices",
        "workers": "data.num_workers",
        "resume": "ckpt_path",
        "weights": "ckpt_path",
    }
    assert nearest_key(habit, VALID["train"]) == meant[habit]


def test_a_key_of_another_option_names_it():
    assert unknown_key("optimizer.momentum", VALID["train"]) == (
        "optimizer.momentum is no key of the present choice, it belongs to optimizer=schedule_free_sgd, optimizer=sgd"
    )
    assert unknown_key("data.image_size", VALID["evaluate"]).endswith(
        "it belongs to data=folder, data=oxford_pet, data=stream, data=synthetic"  # which have it from a fragment
    )
    assert "belongs" not in unknown_key("model.depth", VALID["evaluate"])  # a door without models


def test_an_unknown_key_without_likeness_says_where_to_look():
    assert unknown_key("zzzzzz", VALID["train"]) == ("unknown key zzzzzz, --help lists the choices, --cfg job all keys")


def test_an_unknown_option_is_answered_with_all_options():
    assert unknown_option("model", "unett") == (
        "model has no option unett, did you mean model=unet? (options: fcn, smp, unet, unet_no_skip, unet_paper)"
    )
    assert "did you mean" not in unknown_option("model", "zzz")
    assert unknown_option("experiment", None).startswith("experiment=null is no option: leave experiment out")


def test_an_unknown_door_is_answered_with_all_doors():
    line = unknown_door("trian")
    assert line.startswith("there is no trian, did you mean train? (doors: ")
    assert all(door in line for door in doors())
