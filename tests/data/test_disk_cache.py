import json
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import zlib
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from petseg_lightning.data import disk_cache
from petseg_lightning.data.disk_cache import MANIFEST, DiskArrays, open_disk_cache
from petseg_lightning.data.sample_table import Kind, SampleTable
from petseg_lightning.data.samples import MaskCode, read_resized
from petseg_lightning.errors import InputError

CODE = MaskCode((1, 2, 3), (1, 0, 2))
NUMBER = 28  # of the pictures that tiny_pets draws
processes = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tiny_pets) -> Path:
    return tiny_pets()


def table_of(root: Path, number: int = NUMBER, code: MaskCode = CODE) -> SampleTable:
    """The first pictures of a folder that tiny_pets wrote."""
    folder, table = root / "oxford-iiit-pet", SampleTable()
    kind = Kind(images=folder / "images", ending=".jpg", masks=folder / "annotations" / "trimaps", code=code)
    for path in sorted(kind.images.iterdir())[:number]:
        table.append(path.stem, kind)
    return table


def opened(root: Path, size: int = 24, cache_dir: Path | None = None) -> DiskArrays:
    return open_disk_cache(table_of(root), size, root, cache_dir)


def content(arrays: DiskArrays) -> tuple[bytes, bytes]:
    return arrays.images.tobytes(), arrays.parts.tobytes()


def assert_right(arrays: DiskArrays, table: SampleTable, size: int = 24) -> None:
    assert (arrays.images.dtype, arrays.parts.dtype) == (np.uint8, np.uint8)
    assert (arrays.images.shape, arrays.parts.shape) == ((len(table), size, size, 3), (len(table), size, size))
    for row in range(len(table)):
        image, parts = read_resized(table.sample(row), size)
        np.testing.assert_array_equal(arrays.images[row], image)
        np.testing.assert_array_equal(arrays.parts[row], parts)


def touch(path: Path) -> None:
    """A second later."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def caches(folder: Path) -> list[str]:
    """Everything in a folder of caches, its locks left out."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the pictures that are decoded, in the order of time."""
    names: list[str] = []

    def read(sample, size):
        names.append(sample.name)
        return read_resized(sample, size)

    monkeypatch.setattr(disk_cache, "read_resized", read)
    return names


@pytest.fixture
def words(caplog):
    """What the cache has said since the last call."""
    caplog.set_level(logging.INFO, disk_cache.__name__)

    def since() -> list[str]:
        messages = [record.message for record in caplog.records if record.name == disk_cache.__name__]
        caplog.clear()
        return messages

    return since


@pytest.mark.parametrize("size", [24, 65])
def test_every_picture_is_what_decoding_it_gives(root, size):
    arrays = opened(root, size)
    assert_right(arrays, table_of(root), size)
    assert len({image.tobytes() for image in arrays.images}) == NUMBER
    assert arrays.folder.parent == root / ".petseg_cache"


def test_it_is_decoded_once(root, decoded, words):
    first = opened(root)
    assert sorted(decoded) == sorted(path.stem for path in (root / "oxford-iiit-pet" / "images").iterdir())
    again = opened(root)
    assert len(decoded) == NUMBER
    assert (again.folder, content(again)) == (first.folder, content(first))
    assert words() == []


def test_moved_data_takes_its_cache_along(root, decoded, monkeypatch):
    first = content(opened(root))
    moved = root.rename(root.with_name("moved"))
    assert content(opened(moved)) == first
    monkeypatch.chdir(moved)
    assert content(opened(Path())) == first
    monkeypatch.chdir("..")
    assert content(opened(Path("moved"))) == first
    assert len(decoded) == NUMBER


def test_another_size_list_or_reading_has_a_cache_of_its_own(root, decoded):
    other = MaskCode((1, 2, 3), (3, 0, 4))
    ways = [(table_of(root), 24), (table_of(root), 16), (table_of(root, 20), 24), (table_of(root, code=other), 24)]
    folders = []
    for table, size in ways:
        arrays = open_disk_cache(table, size, root, None)
        assert_right(arrays, table, size)
        folders.append(arrays.folder)
    assert len(set(folders)) == 4
    decoded.clear()
    for (table, size), folder in zip(ways, folders, strict=True):
        arrays = open_disk_cache(table, size, root, None)
        assert arrays.folder == folder
    assert decoded == []


def replaced_by_another(image: Path, mask: Path) -> None:
    ImageOps.mirror(Image.open(image)).save(image)
    ImageOps.mirror(Image.open(mask)).save(mask)


def replaced_by_one_of_equal_size(image: Path, mask: Path) -> None:
    size = image.stat().st_size
    ImageOps.invert(Image.open(image)).save(image, quality=50)
    assert image.stat().st_size < size
    image.write_bytes(image.read_bytes().ljust(size, b"\0"))
    touch(image)


def replaced_mask(image: Path, mask: Path) -> None:
    Image.fromarray(4 - np.asarray(Image.open(mask))).save(mask)
    touch(mask)


@pytest.mark.parametrize("change", [replaced_by_another, replaced_by_one_of_equal_size, replaced_mask])
def test_a_changed_picture_is_decoded_again(root, decoded, words, change):
    before = content(opened(root))
    sample = table_of(root).sample(9)
    change(sample.image, sample.mask)
    arrays = opened(root)
    assert content(arrays) != before
    assert_right(arrays, table_of(root))
    place = arrays.folder
    assert words() == [
        f"The decoded pictures in {place} are of files that have changed since: they are made anew",
    ]
    assert caches(place.parent) == [place.name]
    opened(root)
    assert len(decoded) == 2 * NUMBER


def truncated(place: Path) -> None:
    with (place / "images.npy").open("r+b") as file:
        file.truncate((place / "images.npy").stat().st_size - 1)


def grown(place: Path) -> None:
    with (place / "parts.npy").open("ab") as file:
        file.write(b"\0")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def flipped_first_pixel(place: Path) -> None:
    flip(place / "images.npy", 128)


def flipped_last_pixel(place: Path) -> None:
    flip(place / "parts.npy", -1)


def flipped_header(place: Path) -> None:
    flip(place / "images.npy", 40)


def without_parts(place: Path) -> None:
    (place / "parts.npy").unlink()


def without_anything(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()


def without_manifest(place: Path) -> None:
    (place / MANIFEST).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        grown,
        flipped_first_pixel,
        flipped_last_pixel,
        flipped_header,
        without_parts,
        without_manifest,
        without_anything,
    ],
)
def test_a_damaged_cache_is_made_anew(root, decoded, words, damage):
    place = opened(root).folder
    damage(place)
    require_rebuilt(root, place, decoded, words)


def require_rebuilt(root, place, decoded, words) -> None:
    arrays = opened(root)
    assert words() == [f"The decoded pictures in {place} are damaged: they are made anew"]
    assert arrays.folder == place
    assert_right(arrays, table_of(root))
    assert caches(place.parent) == [place.name]
    assert caches(place) == [MANIFEST, "images.npy", "parts.npy"]
    assert len(decoded) == 2 * NUMBER


def without(key: str):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key})


def replaced(new: str):
    return lambda _: new


def changed(**values):
    return lambda text: json.dumps(json.loads(text) | values)


@pytest.mark.parametrize(
    "edit",
    [
        *map(replaced, ("", "{", "[]", "null", "3", "\udcff")),
        lambda text: text[: len(text) // 2],
        *map(without, ("format", "files", "sizes", "checksums")),
        *[changed(**{key: value}) for key in ("sizes", "checksums") for value in ([], {}, None, 3, "images.npy")],
        changed(checksums={"images.npy": [1], "parts.npy": [2]}),
        changed(checksums={"images.npy": 1, "parts.npy": 2}),
    ],
)
def test_a_broken_manifest_is_a_damage(root, decoded, words, edit):
    place = opened(root).folder
    path = place / MANIFEST
    path.write_bytes(edit(path.read_text()).encode(errors="surrogateescape"))
    require_rebuilt(root, place, decoded, words)


@pytest.mark.parametrize("key", ["format", "pictures", "image_size"])
def test_a_cache_of_another_kind_in_its_place_is_made_anew(root, decoded, words, key):
    place = opened(root).folder
    path = place / MANIFEST
    path.write_text(changed(**{key: 99})(path.read_text()))
    assert_right(opened(root), table_of(root))
    assert len(words()) == 1
    assert len(decoded) == 2 * NUMBER


def test_a_flipped_byte_is_found_anywhere_in_a_file_of_many_chunks(root, monkeypatch):
    monkeypatch.setattr(disk_cache, "_CHUNK", 2**12)
    place = opened(root).folder
    size = (place / "images.npy").stat().st_size
    manifest = json.loads((place / MANIFEST).read_text())
    whole = (place / "images.npy").read_bytes()
    expected = [zlib.crc32(whole[i : i + 2**12]) for i in range(0, size, 2**12)]
    assert manifest["checksums"]["images.npy"] == expected
    assert len(expected) > 10
    for position in (*range(5, size, 2**12), size - 1):
        flip(place / "images.npy", position)
        assert not disk_cache._checksums_match(place, manifest["checksums"])
        flip(place / "images.npy", position)
        assert disk_cache._checksums_match(place, manifest["checksums"])


def test_of_a_large_cache_a_part_is_checked_spread_over_it(root, monkeypatch):
    monkeypatch.setattr(disk_cache, "_CHUNK", 2**12)
    monkeypatch.setattr(disk_cache, "_CHECKED", 4 * 2**12)
    place = opened(root).folder
    chunks = sum(-(-path.stat().st_size // 2**12) for path in place.glob("*.npy"))
    checked = []
    checksum = disk_cache._checksum
    monkeypatch.setattr(disk_cache, "_checksum", lambda path, i: checked.append((path.name, i)) or checksum(path, i))
    opened(root)
    assert 2 < len(checked) <= 4 < chunks
    assert {name for name, _ in checked} == {"images.npy", "parts.npy"}


def count_decoded(file: Path) -> None:
    """In this process, from now on: a byte in `file` for each picture that is decoded."""

    def read(sample, size):
        with file.open("ab", buffering=0) as counter:
            counter.write(b".")
        return read_resized(sample, size)

    disk_cache.read_resized = read


def open_beside_others(root: Path, counter: Path, barrier, results) -> None:
    count_decoded(counter)
    lock = disk_cache.FileLock

    def lock_of_all(path):  # each has seen that there is no cache before one of them makes it
        barrier.wait(60)
        return lock(path)

    disk_cache.FileLock = lock_of_all
    arrays = opened(root)
    results.put((str(arrays.folder), zlib.crc32(arrays.images), zlib.crc32(arrays.parts)))


@pytest.mark.parametrize("stale", [False, True])
def test_of_processes_that_start_at_once_one_builds(root, tmp_path, stale):
    if stale:
        opened(root)
        replaced_mask(*(table_of(root).sample(3).image, table_of(root).sample(3).mask))
    barrier, results, counter = processes.Barrier(2), processes.Queue(), tmp_path / "decoded"
    runs = [processes.Process(target=open_beside_others, args=(root, counter, barrier, results)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    found = {results.get(timeout=60) for _ in runs}
    assert counter.stat().st_size == NUMBER
    arrays = opened(root)
    assert found == {(str(arrays.folder), zlib.crc32(arrays.images), zlib.crc32(arrays.parts))}
    assert_right(arrays, table_of(root))
    assert counter.stat().st_size == NUMBER


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def open_and_die(root: Path, moment: str) -> None:
    numbers, rename = count(), Path.rename

    def read_and_die(sample, size):
        return die() if next(numbers) == 12 else read_resized(sample, size)

    def rename_and_die(path, target):
        rename(path, target)
        if moment == "one renamed" or not path.name.startswith("24px"):
            die()

    match moment:
        case "decoding":
            disk_cache.read_resized = read_and_die
        case "checksums":
            disk_cache._checksums = die
        case "manifest":
            Path.replace = die
        case "one renamed" | "renamed":
            Path.rename = rename_and_die
    opened(root)


def killed_while_opening(root: Path, moment: str) -> None:
    run = processes.Process(target=open_and_die, args=(root, moment))
    run.start()
    run.join(120)
    assert run.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("moment", "stale"),
    [("decoding", False), ("decoding", True), ("checksums", True), ("manifest", False), ("one renamed", True)],
)
def test_a_killed_build_leaves_nothing_that_counts(root, decoded, moment, stale):
    if stale:
        opened(root)
        replaced_mask(table_of(root).sample(3).image, table_of(root).sample(3).mask)
    killed_while_opening(root, moment)
    left = caches(root / ".petseg_cache")
    assert any(name.endswith(".partial") for name in left)
    decoded.clear()
    arrays = opened(root)
    assert len(decoded) == NUMBER
    assert_right(arrays, table_of(root))
    assert caches(root / ".petseg_cache") == [arrays.folder.name]
    assert caches(arrays.folder) == [MANIFEST, "images.npy", "parts.npy"]


def test_a_run_killed_when_the_cache_stands_leaves_one(root, decoded):
    opened(root)
    for changes in range(2):
        decoded.clear()
        replaced_mask(table_of(root).sample(changes).image, table_of(root).sample(changes).mask)
        killed_while_opening(root, "renamed")
        assert_right(opened(root), table_of(root))
        assert decoded == []


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_damaged_file_is_named_and_nothing_is_left(root, kind):
    path = getattr(table_of(root).sample(17), kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"^{path}: cannot be read as a "):
        opened(root)
    assert caches(root / ".petseg_cache") == []
    path.write_bytes(whole)
    assert_right(opened(root), table_of(root))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing(root, monkeypatch, error):
    numbers = count()

    def read(sample, size):
        if next(numbers) == 20:
            raise error
        return read_resized(sample, size)

    monkeypatch.setattr(disk_cache, "read_resized", read)
    with pytest.raises(error):
        opened(root)
    assert caches(root / ".petseg_cache") == []
    assert_right(opened(root), table_of(root))


def test_a_full_disk_is_said_with_the_fix(root, monkeypatch):
    def write(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "write_json", write)
    with pytest.raises(InputError, match=r"^[^\n]*No space left on device[^\n]*data\.cache_dir=[^\n]*$"):
        opened(root)
    assert caches(root / ".petseg_cache") == []


def refuse(*folders: Path):
    """What os.access says where nothing may be written in these folders."""

    def access(path, mode, **options):
        return not (mode & os.W_OK and any(Path(path).is_relative_to(folder) for folder in folders))

    return access


def no_lock(error: Exception):
    def lock(path):
        raise error

    return lock


@pytest.mark.parametrize("set_by", ["XDG_CACHE_HOME", "HOME"])
def test_beside_read_only_data_the_cache_is_in_the_users_own(root, tmp_path, monkeypatch, decoded, set_by):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(set_by, str(tmp_path / "own"))
    monkeypatch.setattr(disk_cache.os, "access", refuse(root))
    before = sorted(root.rglob("*"))
    arrays = opened(root)
    own = tmp_path / "own" if set_by == "XDG_CACHE_HOME" else tmp_path / "own" / ".cache"
    assert arrays.folder.parent == own / "petseg_lightning" / "pictures"
    assert_right(arrays, table_of(root))
    assert sorted(root.rglob("*")) == before
    opened(root)
    assert len(decoded) == NUMBER


def test_a_cache_beside_read_only_data_is_used(root, tmp_path, monkeypatch, decoded):
    built = opened(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(disk_cache.os, "access", refuse(root))
    monkeypatch.setattr(disk_cache, "FileLock", no_lock(PermissionError(13, "Permission denied")))
    arrays = opened(root)
    assert (arrays.folder, content(arrays)) == (built.folder, content(built))
    assert len(decoded) == NUMBER
    assert not (tmp_path / "own").exists()


def test_a_given_folder_is_used(root, tmp_path, monkeypatch, decoded):
    folder = tmp_path / "some" / "where"
    arrays = opened(root, cache_dir=folder)
    assert arrays.folder.parent == folder
    assert not (root / ".petseg_cache").exists()
    monkeypatch.setattr(disk_cache, "FileLock", no_lock(PermissionError(13, "Permission denied")))
    assert content(opened(root, cache_dir=folder)) == content(arrays)
    assert len(decoded) == NUMBER


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), NotImplementedError("no locks here")])
def test_a_folder_that_cannot_be_locked_is_said_with_the_fix(root, tmp_path, monkeypatch, error):
    monkeypatch.setattr(disk_cache, "FileLock", no_lock(error))
    with pytest.raises(InputError) as caught:
        opened(root, cache_dir=tmp_path / "cache")
    assert str(caught.value) == (
        f"decoded pictures cannot be kept in {tmp_path / 'cache'} ({error}); give another folder with "
        "data.cache_dir=..., or use data.cache=memory"
    )


def test_a_folder_that_cannot_be_made_is_said_with_the_fix(root, tmp_path, decoded):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        opened(root, cache_dir=tmp_path / "file" / "cache")
    message = str(caught.value)
    assert message.startswith(f"decoded pictures cannot be kept in {tmp_path / 'file' / 'cache'} (")
    assert message.endswith("; give another folder with data.cache_dir=..., or use data.cache=memory")
    assert "\n" not in message
    assert decoded == []


def test_the_arrays_are_read_only(root):
    arrays = opened(root)
    for array in (arrays.images, arrays.parts):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_a_copy_for_another_process_is_small_and_maps_the_same_files(root):
    arrays = opened(root)
    sent = pickle.dumps(arrays)
    assert len(sent) < 1000 < arrays.parts.nbytes
    copy = pickle.loads(sent)
    assert content(copy) == content(arrays)
    flip_in_place(arrays.folder / "images.npy")
    assert content(copy) == content(arrays)
    assert_last_byte_differs(copy, root)


def flip_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def assert_last_byte_differs(arrays: DiskArrays, root: Path) -> None:
    image, _ = read_resized(table_of(root).sample(NUMBER - 1), 24)
    difference = np.flatnonzero(image.ravel() != arrays.images[-1].ravel())
    assert difference.tolist() == [image.size - 1]


def test_a_running_run_keeps_the_pixels_that_it_has_mapped(root):
    running = opened(root)
    before = content(running)
    touched = table_of(root).sample(0)
    replaced_by_another(touched.image, touched.mask)
    other = opened(root)
    assert content(other) != before
    assert_right(other, table_of(root))
    assert content(running) == before


def test_threads_of_one_process_build_once(root, decoded, monkeypatch):
    together = threading.Barrier(2, timeout=60)
    lock = disk_cache.FileLock
    monkeypatch.setattr(disk_cache, "FileLock", lambda path: together.wait() >= 0 and lock(path))
    results: list[DiskArrays] = []
    threads = [threading.Thread(target=lambda: results.append(opened(root))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == NUMBER
    assert content(results[0]) == content(results[1])
