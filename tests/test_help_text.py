import pytest

from petseg_lightning.conf_tree import (
    comment,
    doors,
    explanation,
    flatten,
    groups,
    header,
    options,
    options_with,
    shown,
)
from petseg_lightning.config import compose
from petseg_lightning.help_text import COMMON_KEYS, columns, door_help


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("door", doors())
def test_everything_that_can_be_chosen_is_explained_within_the_width(door, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = door_help(door, compose(door))
    assert max(map(len, text.splitlines())) <= 100
    wrapped = text.partition("\nChoices")[2] or text.partition("\nKeys")[2]  # examples stay in one piece
    assert max(map(len, wrapped.splitlines())) <= width
    words = " ".join(text.split())
    assert words.startswith(explanation(door))
    for group, default in groups(door).items():
        assert f"\n  {group}\n" in text
        for option in options(group):
            star = "* " if option == default else ""
            assert f"{star}{option} {explanation(f'{group}/{option}')}" in words
    assert "_loader" not in text
    assert "multirun" in text


def test_keys_stand_with_their_present_values_and_comments(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    words = " ".join(door_help("train", compose("train", ["data.image_size=64"])).split())
    assert "data.image_size=64 pictures are resized to this square, in pixels" in words
    assert "seed=0 weights, order of samples" in words
    assert "preprocessing.mean=[0.485,0.456,0.406] of RGB" in words
    words = " ".join(door_help("evaluate", compose("evaluate")).split())
    assert "ckpt=??? a run folder, a .ckpt, a bundle" in words
    assert "_target_" not in words


def test_every_common_key_exists():
    assert set(COMMON_KEYS) <= set(flatten(dict(compose("train")))) | {
        key for group in groups("train") for key in COMMON_KEYS if options_with(key)
    }


def test_columns_wrap_under_their_second_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert columns([("a", "one two three four five six"), ("long", ""), ("x", "y")]) == [
        "  a     one two three four",
        "        five six",
        "  long",
        "  x     y",
    ]


def test_comments_of_the_chosen_option_come_first():
    assert "oxford-iiit-pet" in comment("data.root", "oxford_pet")
    assert "images/ and masks/" in comment("data.root", "folder")
    assert comment("trainer.strategy") == ""


def test_a_header_has_no_package_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("# @package _global_\n# What it is.\n#   an example\nkey: 1  # no\n# nor this\n")
    assert header(file) == ["What it is.", "an example"]


def test_flatten_and_shown():
    assert flatten({"a": {"b": [1], "c": {}}}) == {"a": {"b": [1], "c": {}}, "a.b": [1], "a.c": {}}
    assert [shown(value) for value in (None, True, [1, None, [False]], "x")] == [
        "null",
        "true",
        "[1,null,[false]]",
        "x",
    ]
