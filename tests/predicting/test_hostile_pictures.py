"""Pictures from somebody who means harm, in a folder with good ones, through the command, in one process."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile_pictures import ENDLESS_PROGRAM, exif, jpeg_of_exif, write_hostile_files
from PIL import Image

MOST = 2 * 2**20  # KiB of memory, in all
WATCH = """
import pathlib, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""  # a small process, as the peak of a new one begins with that of the one that starts it


@pytest.fixture
def start(tmp_path, make_checkpoint):
    """(arguments) -> exit code, what is printed, and the peak of memory in KiB, of `petseg predict`."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "convert", "ffmpeg", "dwebp", "heif-convert"):  # what a decoder may want to start
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (programs / name).chmod(0o755)

    def run(*arguments: str) -> tuple[int, str, int]:
        command = [
            sys.executable,
            "-m",
            "petseg_lightning.predict",
            f"ckpt={make_checkpoint()}",
            "device=cpu",
            *arguments,
        ]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COLUMNS": "500",
        }
        with (tmp_path / "printed").open("wb") as printed:
            watched = [sys.executable, "-c", WATCH, str(tmp_path / "peak"), *command]
            code = subprocess.run(watched, stdout=printed, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
        assert not (tmp_path / "started").exists()
        text = (tmp_path / "printed").read_text(errors="surrogateescape")
        return code.returncode, text, int((tmp_path / "peak").read_text())

    return run


def test_the_others_are_done(start, tmp_path):
    photos = tmp_path / "photos"
    hostile = write_hostile_files(photos)
    rng = np.random.default_rng(0)
    good = ["a.png", "m.webp", "z.tif", os.fsdecode(b"caf\xe9.png"), "x" * 251 + ".png"]
    for name in good:
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), np.uint8)).save(photos / name)
    odd = {  # that Pillow cannot write back, or would take 4 GB for
        "zero_divisor.jpg": exif((274, 3, 1, 6), (37380, 10, 1, 38), rest=struct.pack("<2i", -1, 0)),
        "endless.jpg": exif((34665, 4, 1, 8)),
        "no_number.jpg": exif((274, 2, 4, 6)),
        "rationals.jpg": exif(*[(1000 + n, 5, 4000, 24_014) for n in range(2000)], rest=bytes(32_000)),
    }
    for name, content in odd.items():
        (photos / name).write_bytes(jpeg_of_exif(content))
    # their results have names that are too long, as they are to differ
    long = [photos / ("y" * 251 + ending) for ending in (".png", ".bmp")]
    for path in long:
        Image.new("RGB", (9, 9)).save(path)
    code, printed, memory = start(f"source={photos}", "output=results")
    assert code == 1
    assert "Traceback" not in printed
    assert f"{len(hostile) + 2} of {len(hostile) + 2 + len(good) + len(odd)} pictures are missing" in printed
    for path in [*hostile, *long]:
        assert printed.count(f"{path}: ") >= 1, path.name
        assert len([line for line in printed.splitlines() if f"{path}: " in line]) == 1, path.name
    results = tmp_path / "results"
    done = {Path(name).stem for name in (*good, *odd)} - {os.fsdecode(b"caf\xe9")} | {r"caf\udce9"}
    for table in ("predictions.csv", "review.csv"):
        assert set(pd.read_csv(results / table)["name"]) == done
    turned = pd.read_csv(results / "predictions.csv").set_index("name").loc["zero_divisor"]
    assert (turned["width"], turned["height"]) == (30, 40)
    for kind in ("masks", "overlays", "cutouts"):
        assert len(list((results / kind).iterdir())) == len(done)
    assert memory < MOST


@pytest.mark.slow
def test_a_phones_picture_of_50_megapixels(start, tmp_path):
    """Lying, so that it is turned, too."""
    size = (8192, 6144)
    turned = Image.Exif()
    turned[274] = 6
    Image.linear_gradient("L").resize(size).convert("RGB").save(tmp_path / "a.jpg", exif=turned)
    code, printed, memory = start("source=a.jpg", "output=results")
    assert code == 0, printed
    row = pd.read_csv(tmp_path / "results/predictions.csv").iloc[0]
    assert (row["width"], row["height"]) == size[::-1]
    assert memory < MOST


def test_alone_it_ends_with_one_line(start, tmp_path):
    (tmp_path / "a.jpg").write_bytes(ENDLESS_PROGRAM)
    code, printed, _ = start("source=a.jpg", "output=results")
    assert code == 1
    (line,) = (line for line in printed.splitlines() if line.startswith("error: "))
    assert line.startswith("error: 1 of 1 pictures are missing: a.jpg: cannot be read as a picture (it is no JPEG, PNG")
