"""Files of somebody else as plain values: bounded, and nothing in them resolves."""

import os

import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import brief, parse_json, parse_yaml, read_bytes, read_json, read_text, require_plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, null, true]\n", {"a": 1, "b": ["x", 2.5, None, True]}),
        ("day: 2026-01-31\n", {"day": "2026-01-31"}),
        ("a: ${oc.env:HOME}\n", {"a": "${oc.env:HOME}"}),
        ("", None),
    ],
)
def test_yaml_as_it_is_written(text, value):
    assert parse_yaml(text, "a.yaml") == value


@pytest.mark.parametrize(
    "text",
    [
        "a: &a 1\nb: *a\n",
        "[" * 40 + "]" * 40,
        "!!python/name:os.system",
        "a: !!binary aGk=",
        "1: x",
        "? [1]\n: 2",
        "a: 1.0e+300",
    ],
)
def test_yaml_that_is_not_plain_is_one_line(text):
    with pytest.raises(InputError, match=r"^a\.yaml cannot be read as YAML \(") as error:
        parse_yaml(text, "a.yaml")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "1" * 5000, "[1e999, 1e16]", '{"a": ' * 40 + "1" + "}" * 40])
def test_json_that_is_not_plain_is_one_line(text):
    with pytest.raises(InputError, match=r"^a\.json is not valid JSON of its kind \("):
        parse_json(text, "a.json")


def test_values_are_counted_before_they_are_looked_at():
    many: list = [0] * 1000
    for _ in range(20):
        many = [many] * 1000
    with pytest.raises(ValueError, match="more than 100,000 values"):
        require_plain(many)
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="in one another"):
        require_plain(endless)


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    (tmp_path / "large").write_bytes(bytes(101))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"\xff")
    for read, name, words in (
        (lambda path: read_bytes(path, 100), "large", "more than 100 bytes"),
        (read_bytes, "pipe", "pipe"),
        (read_bytes, "nothing", "No such file"),
        (read_bytes, "", "folder"),
        (read_text, "text", "no UTF-8 text"),
        (read_json, "text", "no UTF-8 text"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


def test_a_link_is_not_followed_out_of_a_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="is a link that leaves"):
        read_text(inside / "link", inside=inside)
    (inside / "own").write_text("own")
    (inside / "other").symlink_to(inside / "own")
    assert read_text(inside / "other", inside=inside) == "own"


def test_a_value_in_brief_has_no_signs_for_the_terminal():
    assert brief("\x1b[2Jx\n") == "?[2Jx?"
    assert len(brief("y" * 10**6)) == 63
