"""Which files are meant, and what their results are called."""

import os
from pathlib import Path

import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.inference.sources import find_pictures

OUTPUT = Path("predictions")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.JPG", "a.png", "notes.md", "deep/er/a.png", "deep/c.webp", "predictions/masks/a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def found(source, output=OUTPUT) -> dict[str, str]:
    return {str(one.path): one.name for one in find_pictures(source, output)}


def test_a_folder_keeps_its_structure():
    assert found("photos", Path("photos/predictions")) == {
        "photos/a.png": "a",
        "photos/b.JPG": "b",
        "photos/deep/c.webp": "deep/c",
        "photos/deep/er/a.png": "deep/er/a",
    }


def test_pictures_in_the_folder_of_results_are_said_to_be_there():
    with pytest.raises(InputError, match=r"its pictures lie in output=photos/predictions, .*give another output="):
        found("photos/predictions", Path("photos/predictions"))


def test_a_file_whatever_its_ending():
    assert found("photos/notes.md") == {"photos/notes.md": "notes"}


def test_a_glob():
    assert found("photos/deep/**/*") == {"photos/deep/c.webp": "c", "photos/deep/er/a.png": "er/a"}
    assert found(f"{Path.cwd()}/photos/*.png") == {f"{Path.cwd()}/photos/a.png": "a"}


def test_a_list_is_relative_to_itself(folder):
    (folder / "photos" / "list.txt").write_text(f"a.png\n\ndeep/c.webp\n../photos/b.JPG\n{folder}/x.jpg\n")
    assert found("photos/list.txt") == {
        "photos/a.png": "a",
        "photos/deep/c.webp": "deep/c",
        "photos/../photos/b.JPG": "photos/b",
        f"{folder}/x.jpg": f"{folder}/x"[1:],
    }


def test_a_video_is_meant_where_it_is_named(folder):
    for name in ("clip.MP4", "clip.webm", "list.txt"):
        (folder / "photos" / name).write_text("clip.webm\n")
    for source in ("photos", "photos/*"):
        assert not [path for path in found(source) if "clip" in path]
    for source in ("clip.MP4", "*.MP4"):
        assert found(f"photos/{source}") == {"photos/clip.MP4": "clip"}
    for source in ("c*.webm", "list.txt"):
        assert found(f"photos/{source}") == {"photos/clip.webm": "clip"}


def test_several_sources_and_a_picture_that_is_in_two():
    assert found(["photos/a.png", "photos/*.*"]) == {"photos/a.png": "a", "photos/b.JPG": "b"}


def test_two_pictures_of_one_stem_have_results_of_their_own(folder):
    (folder / "photos" / "a.jpg").touch()
    assert set(found("photos/*").values()) == {"a.png", "a.jpg", "b"}


def test_a_name_with_signs_of_a_glob_is_a_file(folder):
    (folder / "cat[1].jpg").touch()
    assert found("cat[1].jpg") == {"cat[1].jpg": "cat[1]"}


@pytest.mark.parametrize("source", ["nowhere", "photos/*.tif", []])
def test_nothing_there(source):
    with pytest.raises(InputError, match="no pictures there; give a picture, a folder or glob of them"):
        find_pictures(source, Path("photos/predictions"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read(folder):
    (folder / "photos" / "deep").chmod(0)
    with pytest.raises(PermissionError, match="deep"):
        find_pictures("photos", OUTPUT)
