"""Folders of pictures through the door's function: what is left, what goes on, what is left out."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.predicting import run as predicting
from petseg_lightning.predicting.results import Results
from petseg_lightning.predicting.run import predict


@pytest.fixture
def photos(tmp_path) -> Path:
    """Five pictures of different sizes in two folders."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "deep/a.webp", "deep/c.gif", "d.tif")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        noise.resize((40 + number, 50 - 3 * number)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def run(make_checkpoint, photos, tmp_path):
    """(overrides) -> the rows; predicts `photos` into `results`."""
    checkpoint = make_checkpoint()

    def run(*overrides: str) -> list[dict]:
        given = [f"ckpt={checkpoint}", f"source={photos}", f"output={tmp_path}/results", "device=cpu", *overrides]
        return predict(compose("predict", given, output_dir=tmp_path))

    return run


def files(folder: Path) -> dict[str, int]:
    """Paths of the results of pictures, and when each was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder
    }


NAMES = ("a", "b", "d", "deep/a", "deep/c")


def test_what_is_left(run, photos, make_checkpoint, tmp_path):
    rows = run("probabilities=true", "batch_size=2")
    results = tmp_path / "results"
    kinds = {"masks": "png", "overlays": "jpg", "cutouts": "png", "probabilities": "npz"}
    assert set(files(results)) == {f"{kind}/{name}.{ending}" for kind, ending in kinds.items() for name in NAMES}
    assert sorted(path.name for path in results.iterdir() if path.is_file()) == [
        ".lock",
        "predictions.csv",
        "predictions.json",
        "predictions.jsonl",
        "review.csv",
        "settings.json",
    ]
    predictor = Predictor.load(make_checkpoint())
    for row in rows:
        (path,) = (p for p in photos.rglob("*") if p.relative_to(photos).with_suffix("").as_posix() == row["name"])
        expected = predictor(path)
        mask = np.asarray(Image.open(results / f"masks/{row['name']}.png"))
        stored = np.load(results / f"probabilities/{row['name']}.npz")
        np.testing.assert_array_equal(mask, stored["probabilities"].argmax(0))
        np.testing.assert_allclose(stored["probabilities"], expected.probabilities, atol=2e-4)
        assert stored["class_names"].tolist() == ["pet", "background", "border"]
        assert (row["width"], row["height"]) == expected.image.size == mask.shape[::-1]
        for kind in ("overlays", "cutouts"):
            assert Image.open(results / f"{kind}/{row['name']}.{kinds[kind]}").size == expected.image.size
        assert row["share_pet"] == pytest.approx((mask == 0).mean(), abs=1e-5)
        thing = np.argwhere(mask != 1)
        assert [row["top"], row["left"]] == thing.min(0).tolist()
        assert [row["bottom"], row["right"]] == (thing.max(0) + 1).tolist()
        assert row["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
        assert row["seconds"] > 0
    assert [row["name"] for row in rows] == list(NAMES)
    assert json.loads((results / "predictions.json").read_text()) == rows
    table = pd.read_csv(results / "predictions.csv")
    assert table["name"].tolist() == list(NAMES)
    review = pd.read_csv(results / "review.csv")
    assert review["confidence"].is_monotonic_increasing
    assert sorted(review["name"]) == list(NAMES)


def test_how_much_of_the_review_to_look_at(run, make_checkpoint, tmp_path, capsys):
    """A picture is bad where its confidence and an error, on the scale of logits, lead below a half."""
    errors = [-0.9, -0.5, -0.2, 0.0, 0.1, 0.3, 0.4, 0.8, 1.2, 2.0, 3.0]
    forecast = {"pictures": 11, "slope": 1.5, "intercept": -0.2, "errors": errors}
    rows = run(f"ckpt={make_checkpoint('f.ckpt', forecast=forecast)}")
    for row in rows:
        expected = -0.2 + 1.5 * np.log(row["confidence"] / (1 - row["confidence"]))
        bad = sum(error + expected < 0 for error in errors)
        assert (bad - 1) / 10 - 1e-3 <= row["risk"] <= bad / 10 + 1e-3
        assert 0 < row["risk"] < 1
    review = pd.read_csv(tmp_path / "results/review.csv")
    assert review["risk"].is_monotonic_decreasing
    assert set(review["risk"]) == {row["risk"] for row in rows}
    enough = next(n for n in range(6) if review["risk"][:n].sum() >= 0.8 * review["risk"].sum())
    line = (
        f"look at the first {enough} of 5 in review.csv: about 80% of the {review['risk'].sum():.1f} that are expected"
    )
    assert line in capsys.readouterr().out
    one = tmp_path / "one"
    run(f"ckpt={make_checkpoint('f.ckpt', forecast=forecast)}", f"source={tmp_path}/photos/a.png", f"output={one}")
    risk = pd.read_csv(one / "review.csv")["risk"].item()
    assert f"the picture is bad (mean IoU below 0.5) with a probability of {risk:.0%}" in capsys.readouterr().out
    sure = {**forecast, "intercept": 9}
    assert [row["risk"] for row in run(f"ckpt={make_checkpoint('s.ckpt', forecast=sure)}", "overwrite=true")] == [0] * 5
    assert "no bad pictures expected" in capsys.readouterr().out


@pytest.mark.parametrize("override", ["tta=none", "tta=flip", "ckpt=[{0},{0}]"])
def test_nothing_is_foretold_of_confidences_that_were_not_measured(run, make_checkpoint, tmp_path, capsys, override):
    forecast = {"pictures": 2, "slope": 1.0, "intercept": 0.0, "errors": [0.0, 0.1]}
    path = make_checkpoint("f.ckpt", **({"forecast": forecast} if override != "tta=none" else {}))
    assert [row["risk"] for row in run(f"ckpt={path}", override.format(path))] == [None] * 5
    assert pd.read_csv(tmp_path / "results/review.csv")["risk"].isna().all()
    assert "review  how many are bad is not foretold" in capsys.readouterr().out


def test_what_is_there_is_left_as_it_is(run, photos, tmp_path):
    first = run()
    before = files(tmp_path / "results")
    (tmp_path / "results/masks/b.png").unlink()
    Image.new("RGB", (20, 20), "green").save(photos / "d.tif")  # another picture of the same name
    second = run()
    after = files(tmp_path / "results")
    assert {path for path in after if after[path] != before.get(path)} == {
        f"{kind}/{name}.{ending}"
        for kind, ending in (("masks", "png"), ("overlays", "jpg"), ("cutouts", "png"))
        for name in ("b", "d")
    }
    unchanged = [row["name"] not in ("b", "d") for row in first]
    assert [row for row, same in zip(second, unchanged, strict=True) if same] == [
        row for row, same in zip(first, unchanged, strict=True) if same
    ]
    assert (second[2]["width"], second[2]["height"]) == (20, 20)
    again = files(tmp_path / "results")
    assert run() == second  # with nothing left to do
    assert files(tmp_path / "results") == again
    run("overwrite=true")
    assert all(when > again[path] for path, when in files(tmp_path / "results").items())


def test_tables_have_what_commands_before_left(run, photos, tmp_path, capsys):
    run(f"source={photos}/deep")
    assert [row["name"] for row in run(f"source={photos}/b.jpg")] == ["b", "a", "c"]
    assert "3 pictures predicted, 2 of them before\n" in capsys.readouterr().out
    (tmp_path / "x.jpg").write_text("no picture")
    with pytest.raises(InputError, match="1 of 1 pictures are missing"):
        run(f"source={tmp_path}/x.jpg")
    for table in ("predictions.csv", "review.csv"):
        assert sorted(pd.read_csv(tmp_path / "results" / table)["name"]) == ["a", "b", "c"]


def test_results_of_another_model_are_not_mixed_in(run, make_checkpoint, tmp_path):
    run()
    before = files(tmp_path / "results")
    other = make_checkpoint("b.ckpt", seed=1)
    for override, what in ((f"ckpt={other}", "models"), ("tta=flip", "tta")):
        with pytest.raises(InputError, match=rf"other settings \({what}\); give another output=, or overwrite=true"):
            run(override)
    assert files(tmp_path / "results") == before
    rows = run(f"ckpt={other}", "overwrite=true")
    assert len(rows) == 5
    assert len((tmp_path / "results/predictions.jsonl").read_text().splitlines()) == 5


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(run, photos, tmp_path, capsys):
    (photos / "b.jpg").write_bytes(b"")
    (photos / "x.jpg").write_text("no picture")
    with pytest.raises(InputError) as error:
        run("batch_size=2")
    assert str(error.value).startswith("2 of 6 pictures are missing: ")
    assert f"{photos}/b.jpg: cannot be read as a picture" in str(error.value)
    assert f"{photos}/x.jpg: cannot be read" in str(error.value)
    table = pd.read_csv(tmp_path / "results/predictions.csv")
    assert table["name"].tolist() == ["a", "d", "deep/a", "deep/c"]
    assert "left out" not in capsys.readouterr().out  # the error has them all


def test_only_pictures_that_cannot_be_read(run, photos):
    for path in [path for path in photos.rglob("*") if path.is_file()]:
        path.write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"5 of 5 pictures are missing: .*; and 2 more"):
        run()


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "abacus"])
def test_a_device_that_is_not_there(run, device, tmp_path):
    with pytest.raises(InputError, match=rf"device={device} cannot be used here \(.+\); give auto or cpu"):
        run(f"device={device}")
    assert not (tmp_path / "results").exists()


def test_a_full_disk_leaves_no_half_file(run, photos, monkeypatch, tmp_path):
    save = Image.Image.save

    def full(image, path, **options):
        save(image, path, **options)
        if "overlays" in Path(path).parts:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    monkeypatch.undo()
    names = files(tmp_path / "results")
    assert not [name for name in names if name.startswith(("overlays", "cutouts")) or "/." in name]
    assert len(run()) == 5


@pytest.mark.parametrize("end", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_done_before_the_end_is_in_the_tables(run, monkeypatch, tmp_path, end):
    """The disk is full, or Ctrl-C is pressed, at the third picture."""
    add, added = Results.add, []

    def ended(results, row):
        if len(added) == 2:
            raise end
        added.append(row["name"])
        add(results, row)

    monkeypatch.setattr(Results, "add", ended)
    with pytest.raises(type(end), match=r"No space left|what is done is in .*results, and the same command goes on"):
        run("batch_size=1")
    for table in ("predictions.csv", "review.csv"):
        assert sorted(pd.read_csv(tmp_path / "results" / table)["name"]) == sorted(added)
    monkeypatch.undo()
    assert len(run()) == 5


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "b.jpg: does not fit into memory; save it smaller, or end other programs"),
        (RuntimeError("cannot\nallocate"), "b.jpg: cannot be predicted (RuntimeError: cannot allocate); leave it out"),
        (
            OSError(5, "Input/output error"),
            "b.jpg: its results cannot be written ([Errno 5] Input/output error); rename",
        ),
    ],
)
@pytest.mark.parametrize("where", ["logits", "finish"])
def test_whatever_happens_to_a_picture_the_others_are_done(run, monkeypatch, tmp_path, where, error, line):
    method = getattr(Predictor, where)

    def failing(predictor, pictures, *further):
        for picture in pictures if isinstance(pictures, list) else [pictures]:
            if picture.size == (41, 47):  # b.jpg
                raise error
        return method(predictor, pictures, *further)

    monkeypatch.setattr(Predictor, where, failing)
    with pytest.raises(InputError) as raised:
        run()
    assert str(raised.value).startswith("1 of 5 pictures are missing: ")
    assert line in str(raised.value)
    assert pd.read_csv(tmp_path / "results/predictions.csv")["name"].tolist() == ["a", "d", "deep/a", "deep/c"]


def test_a_picture_beyond_a_limit_is_left_out_before_it_is_read(run, photos):
    with pytest.raises(
        InputError, match=r"1 of 1 pictures .*b\.jpg: 41 x 47 pixels in windows of tiling=1 are 1,927 wind"
    ):
        run(f"source={photos}/b.jpg", "tiling=1")
    with pytest.raises(InputError, match=r"b\.jpg: has more than 0\.0019 million pixels \(41 x 47\); save it smaller"):
        run("max_megapixels=0.0019", "overwrite=true")


def test_results_of_a_file_that_is_gone_meanwhile(run, photos):
    run()
    (photos / "b.jpg").rename(photos / "list.txt")
    (photos / "list.txt").write_text("a.png\nb.jpg\n")
    with pytest.raises(InputError, match=r"1 of 2 pictures are missing: .*b\.jpg: is not there"):
        run(f"source={photos}/list.txt")


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "{}",
        '{"name": "x"}',
        '{"name": "x", "confidence": "high", "stamp": 1}',
        '{"name": "x", "confidence": NaN, "stamp": []}',
        '{"name": "x", "confidence": 0.5, "stamp": [], "width": Infinity}',
        "null",
        "1e999",
    ],
)
def test_a_journal_from_somebody_else(run, tmp_path, line):
    run()
    for name in ("predictions.jsonl", "settings.json"):
        (tmp_path / "results" / name).write_text(line + "\n")
    assert len(run("overwrite=true")) == 5


@pytest.mark.parametrize("name", ["predictions.jsonl", "settings.json"])
def test_a_pipe_where_results_are_to_be(run, tmp_path, name):
    """It would wait for ever for what to read."""
    (tmp_path / "results").mkdir()
    os.mkfifo(tmp_path / "results" / name)
    try:
        assert len(run()) == 5
    except InputError as error:
        assert f"{name}: is a folder, pipe" in str(error)  # noqa: PT017 (either will do)


def test_a_large_picture_is_alone_in_memory(run, photos, monkeypatch, tmp_path):
    """And all are predicted as before."""
    before = run()
    monkeypatch.setattr(predicting, "ROOM", 2000)  # a.png is 40 x 50, d.tif 44 x 38
    rows = run("overwrite=true")
    unmeasured = [[{k: v for k, v in row.items() if k != "seconds"} for row in some] for some in (before, rows)]
    assert unmeasured[0] == unmeasured[1]


def test_a_torn_line_of_the_journal(run, tmp_path):
    run()
    journal = tmp_path / "results/predictions.jsonl"
    text = journal.read_text()
    journal.write_text(text[:-10])
    assert len(run()) == 5
    assert len(journal.read_text().splitlines()) == 5


KILLED = """
import os, signal
from petseg_lightning.predicting.results import Results

add = Results.add
def add_or_die(results, row):
    add(results, row)
    if len(results._rows) == 20:
        os.kill(os.getpid(), signal.SIGKILL)

Results.add = add_or_die
from petseg_lightning.predict import main
main()
"""


def test_killed_and_started_again(make_checkpoint, tmp_path):
    """SIGKILL after 20 of 200, while threads write others: the second start does the rest, and only the rest."""
    folder, results = tmp_path / "many", tmp_path / "results"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(200):
        Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).save(folder / f"{number:03}.png")
    arguments = [f"ckpt={make_checkpoint()}", f"source={folder}", f"output={results}", "batch_size=2", "device=cpu"]

    def start(*program: str) -> int:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *program, *arguments]
        return subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode

    assert start("-c", KILLED) == -signal.SIGKILL
    done = {json.loads(line)["name"] for line in (results / "predictions.jsonl").read_text().splitlines()}
    before = files(results)
    assert len(done) == 20
    for path in before:
        if not Path(path).name.startswith("."):
            Image.open(results / path).load()
    assert start("-m", "petseg_lightning.predict") == 0
    after = files(results)
    assert {path for path in after if before.get(path) == after[path]} >= {f"masks/{name}.png" for name in done}
    assert len(pd.read_csv(results / "predictions.csv")) == 200
    assert set(after) == {
        f"{kind}/{number:03}.{ending}"
        for kind, ending in (("masks", "png"), ("overlays", "jpg"), ("cutouts", "png"))
        for number in range(200)
    }
