import json
import math
import stat

import pytest

from petseg_lightning.files import replacing, replacing_folder, write_json, write_text


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
