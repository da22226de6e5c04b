"""A disk that is full while a run writes to it: one line, nothing half-written, and the run goes on when there is room.

The disk is a small tmpfs of a process of its own (`unshare`). The process fills it at the moment at which it opens a
given file for writing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from petseg_lightning.config import compose
from petseg_lightning.resuming import newest_checkpoint
from petseg_lightning.training import train

STAGES = {  # what is opened, for which time the disk is then full, and the bytes that are left
    "settings": (r"\.hydra/overrides", 1, 0),
    "drawing": (r"pets/.*/images/", 10, 0),
    "decoding": (r"/images\.npy", 1, 20480),
    "events": (r"events\.out", 1, 0),
    "first_checkpoint": (r"checkpoints/\.unfinished_.*ckpt", 1, 40960),
    "best_checkpoint": (r"checkpoints/\.unfinished_.*ckpt", 2, 0),
    "checkpoint": (r"checkpoints/\.unfinished_.*ckpt", 5, 40960),
    "replay": (r"checkpoints/\.unfinished_.*json", 1, 0),
    "csv": (r"csv/\.unfinished", 3, 0),
    "last_csv": (r"csv/\.unfinished", 6, 0),
    "forecast": (r"checkpoints/\.unfinished_.*ckpt", 9, 0),
    "per_image": (r"run/\.unfinished_.*csv", 2, 0),
    "picture": (r"pictures/\.unfinished", 3, 0),
    "metrics": (r"run/\.unfinished_.*json", 1, 8192),
    "environment": (r"run/\.unfinished_.*json", 2, 0),
    "report": (r"run/\.unfinished_.*html", 1, 20480),
}
QUICK = ("settings", "checkpoint")
PROGRAM = r"""
import json, os, re, shutil, subprocess, sys
from pathlib import Path

disk, kept, stage, command = json.loads(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
pattern, times, room = stage
writing = os.O_WRONLY | os.O_RDWR

def fill(event, arguments):
    global times
    if event != "open" or times == 0 or not isinstance(arguments[2], int) or not arguments[2] & writing:
        return
    if re.search(pattern, os.fsdecode(arguments[0])):
        times -= 1
        if times == 0:
            with open(f"{disk}/filler", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    file.truncate(max(0, file.tell() - room))

sys.addaudithook(fill)
sys.argv = ["petseg", *command]
from petseg_lightning.cli import main
try:
    main()
finally:
    assert times == 0, "the stage was not reached"
    os.remove(f"{disk}/filler")
    shutil.copytree(disk, kept, dirs_exist_ok=True)
"""


@pytest.fixture(scope="session")
def own_disk(tmp_path_factory) -> tuple[str, ...]:
    """What starts a process that may mount a disk which only it sees."""
    start = ("unshare", "--user", "--map-root-user", "--mount")
    try:
        subprocess.run([*start, "mount", "-t", "tmpfs", "tmpfs", tmp_path_factory.mktemp("disk")], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no ordinary process mount a disk of its own")
    return start


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in STAGES if n not in QUICK)])
def test_a_full_disk_costs_nothing_that_was_trained(own_disk, small_overrides, trained_run, tmp_path, name):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    settings = [*small_overrides, "compute=exact", f"hydra.run.dir={disk}/run"]
    if name == "drawing":
        settings.append(f"data.root={disk}/pets")
    if name == "decoding":
        settings.append(f"data.cache_dir={disk}/cache")
    argument = json.dumps([str(disk), str(kept), STAGES[name], ["train", *settings]])
    done = subprocess.run(
        [*own_disk, sys.executable, "-c", PROGRAM, argument],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert name == "settings" or str(disk) in done.stderr  # Hydra does not say where
    left = [path.name for path in kept.rglob("*")]
    assert not [one for one in left if one.startswith(".unfinished_") or one.endswith((".partial", ".stale"))]
    run = kept / "run"
    if name in ("settings", "drawing", "decoding"):
        assert not run.exists()
        return
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert newest_checkpoint(path) is not None
    cfg = compose("train", [f"resume={run}"])
    assert train(cfg)["splits"] == json.loads((trained_run() / "metrics.json").read_text())["splits"]
    assert (run / "report.html").is_file()
    for file in ("best.ckpt", "last.ckpt"):
        one, other = (
            torch.load(folder / "checkpoints" / file, weights_only=True)["state_dict"]
            for folder in (run, trained_run())
        )
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_a_full_disk_under_what_is_printed_is_one_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "petseg_lightning.train", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device")
    assert len(done.stderr.splitlines()) == 1
