import errno
import sys

import pytest

from petseg_lightning.errors import InputError
from petseg_lightning.failures import remove_if_unused, report


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.jpg is damaged: remove it"), "error: a.jpg is damaged: remove it\n"),
        (OSError("a.jpg: gone"), "error: a.jpg: gone (PETSEG_TRACEBACK=1 shows where)\n"),
    ],
)
def test_a_mistake_found_in_a_worker_of_a_data_loader_reads_as_if_found_here(capsys, error, line):
    wrapper = pytest.importorskip("torch._utils").ExceptionWrapper
    try:
        raise error
    except type(error):
        wrapped = wrapper(sys.exc_info(), where="in DataLoader worker process 0")
    with pytest.raises(type(error)) as caught:
        wrapped.reraise()
    assert "Original Traceback" in str(caught.value)
    report(caught.value)
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a\nb \x1b[31mred"), "error: a b ?[31mred\n"),
        (InputError("x" * 9_000), f"error: {'x' * 4_000}...\n"),
        (
            MemoryError(),
            "error: the memory does not suffice (no more is free): give smaller pictures, batches or models",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: the memory does not suffice (Default"),
    ],
)
def test_a_mistake_is_one_line_of_text(capsys, error, line):
    report(error)
    assert capsys.readouterr().err.startswith(line)


def test_a_library_that_wraps_a_mistake_does_not_make_it_a_bug(capsys):
    error = ValueError("cannot log")
    error.__cause__ = FileNotFoundError(errno.ENAMETOOLONG, "File name too long", "aaa")
    report(error)
    assert capsys.readouterr().err == "error: [Errno 36] File name too long: 'aaa' (PETSEG_TRACEBACK=1 shows where)\n"


def test_a_folder_is_only_removed_where_nothing_but_its_config_is_in_it(tmp_path):
    unused, used, empty, absent = (tmp_path / name for name in ("unused", "used", "empty", "absent"))
    for folder in (unused, used):
        (folder / ".hydra").mkdir(parents=True)
    (used / "metrics.json").touch()
    empty.mkdir()
    for folder in (unused, used, empty, absent):
        remove_if_unused(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "used"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device: free some space, or",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", b"a/b"),
            "No space left on device (a/b): free some space, or",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "a/b"),
            "Permission denied (a/b): give yourself access, or",
        ),
        (OSError(errno.EIO, "Input/output error", "a/b"), "[Errno 5] Input/output error: 'a/b' (PETSEG_TRACEBACK=1"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_what_to_do(capsys, error, line):
    report(error)
    message = capsys.readouterr().err
    assert message.startswith(f"error: {line}")
    assert message.count("\n") == 1
