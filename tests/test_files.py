import json
import math
import os
import socket
import stat
from pathlib import Path

import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.files import open_regular, read_lines, replacing, replacing_folder, write_json, write_text


@pytest.fixture
def odd_files(tmp_path) -> list[Path]:
    """What has the name of a file, and waits for ever, has no end, or is none."""
    pipe, dangling, loop, plug = (tmp_path / name for name in ("pipe", "dangling", "loop", "socket"))
    os.mkfifo(pipe)
    dangling.symlink_to("nowhere")
    loop.symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(plug))
    return [pipe, dangling, loop, plug, tmp_path, Path("/dev/zero"), Path("/dev/stdin")]


def test_only_regular_files_are_opened(odd_files, tmp_path):
    for path in odd_files:
        with pytest.raises((InputError, OSError), match=r"pipe, socket or device|No such file|Too many levels"):
            open_regular(path)
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize("text", ["", "\n", "a\r\nb\rc\n\nd", "a\x0c\nb\x1cc\u2028d\n ", "élan noir.jpg\n图.jpg"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_those_of_the_whole_text(tmp_path, text, encoding):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert list(read_lines(tmp_path / "a.txt")) == text.splitlines()


@pytest.mark.parametrize("content", ["élan.jpg".encode("latin-1"), b"a\n\xc3\n", b"\xff\xfea"])
def test_a_list_of_another_encoding_is_named(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt: is not in UTF-8 \(.*\); save the list with this encoding"):
        list(read_lines(tmp_path / "a.txt"))


def test_what_is_no_list_ends_at_once(tmp_path):
    """A file of 100 GB without a line's end, that takes no room on the disk."""
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(10**11)
    (tmp_path / "b.txt").write_text("a" * 10**6)
    for name in ("a.txt", "b.txt"):
        with pytest.raises(InputError, match="is no text with a name in each line"):
            list(read_lines(tmp_path / name))


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    for content in ("old", "new"):
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
            assert temporary != path
            temporary.write_text(content)
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_folder_takes_the_place_of_the_old_one_with_all_in_it(tmp_path):
    folder = tmp_path / "new" / "bundle"
    for name in ("old", "new"):
        with replacing_folder(folder) as partial:
            assert list(partial.iterdir()) == []
            (partial / name).write_text(name)
        assert [path.name for path in folder.iterdir()] == [name]
    (tmp_path / "new" / ".bundle.partial").mkdir()  # of a process that was killed

    def interrupted() -> None:
        with replacing_folder(folder) as partial:
            (partial / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert [path.name for path in folder.iterdir()] == ["new"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_holds_no_nan(tmp_path, value):
    path = tmp_path / "metrics.json"
    write_json(path, {"miou": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"miou": value})
    assert json.loads(path.read_text()) == {"miou": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_json_ends_its_line(tmp_path):
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_bytes() == "größer".encode()
    write_json(tmp_path / "a.json", [1])
    assert (tmp_path / "a.json").read_text().endswith("]\n")
