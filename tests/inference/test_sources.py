"""Which files are meant, and what their results are called."""

import os
from contextlib import suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petseg_lightning.errors import InputError
from petseg_lightning.inference import sources
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


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (["dogs", "cats"], {"dogs/0", "dogs/1", "cats/0", "cats/1"}),
        (["dogs/0.jpg", "cats/0.jpg"], {"dogs/0", "cats/0"}),
        ("trip", {"trip/tom", "tom.png", "trip/tom.jpg"}),
        ("same.txt", {"dogs/0", "cats/0", "0"}),
    ],
)
def test_every_picture_has_results_of_its_own(folder, source, names):
    for path in ("dogs/0.jpg", "dogs/1.jpg", "cats/0.jpg", "cats/1.jpg", "trip/tom.jpg", "trip/tom.png"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    (folder / "trip/tom.jpg.png").touch()
    (folder / "same.txt").write_text("dogs/0.jpg\ncats/0.jpg\n../0.jpg\n")
    results = found(source)
    assert len(set(results.values())) == len(results) == len(names)
    assert set(results.values()) == names


def test_links_are_followed_and_folders_in_a_circle_end(folder):
    """Two links of a folder to itself are 2**40 paths to every picture."""
    for name in ("one", "two", "deep/up"):
        (folder / "photos" / name).symlink_to(folder / "photos")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/z.jpg").touch()
    (folder / "photos/link").symlink_to(folder / "elsewhere")
    assert set(found("photos", Path("photos/predictions")).values()) == {"a", "b", "deep/c", "deep/er/a", "link/z"}
    assert "z" not in str(found("photos/**/*", Path("photos/predictions")))


def test_what_macs_and_notebooks_leave_is_no_picture(folder):
    for name in ("._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"):
        (folder / "photos" / name).parent.mkdir(exist_ok=True)
        (folder / "photos" / name).touch()
    for source in ("photos", "photos/**/*"):
        assert sorted(found(source, Path("photos/predictions")).values()) == ["a", "b", "deep/c", "deep/er/a"]
    assert found("photos/._*") == {"photos/._a.png": "._a"}


def test_a_list_of_odd_lines(folder):
    """No name leads out of the folder of results, and none is empty."""
    lines = ["..", ".", "/", "../../a.jpg", "/etc/passwd", "a/../../b", "x" * 5000, "a.txt", "~/a.jpg", "con\x1btrol"]
    (folder / "list.txt").write_text("\n".join(lines))
    names = list(found("list.txt").values())
    assert len(names) == len(set(names)) == len(lines)
    for name in names:
        assert PurePath(name).name
        assert not PurePath(name).is_absolute()
        assert ".." not in PurePath(name).parts


def test_too_long_a_list(folder, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LISTED", 2)
    (folder / "list.txt").write_text("a.png\nb.JPG\nc.png\n")
    with pytest.raises(InputError, match=r"list\.txt: lists more than 2 pictures; divide it into several lists"):
        found("list.txt")


def test_a_pattern_that_is_none():
    with pytest.raises(InputError, match=r"is no pattern of paths"):
        found("photos/**x/*")


@given(st.lists(st.text(), max_size=20), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_list(lines, encoding):
    """A name for each different picture, in the folder of results; or one line."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "list.txt")
        path.write_bytes("\n".join(lines).encode(encoding, "surrogatepass"))
        names: list[str] = []
        with suppress(InputError):
            names = list(found(str(path)).values())
        assert len(names) == len(set(names))
        for name in names:
            assert PurePath(name).name
            assert not PurePath(name).is_absolute()
            assert ".." not in PurePath(name).parts
