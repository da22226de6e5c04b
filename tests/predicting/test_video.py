"""Clips of a drawn pet, written by PyAV itself: what comes back is read again and compared."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.data.video_file import Frame, VideoFile
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.predicting.results import describe
from petseg_lightning.predicting.run import predict
from petseg_lightning.predicting.video import _VideoWriter

av = pytest.importorskip("av")

SEED = 4  # of weights by which most of these clips is pet


def drawn(number: int, width: int, height: int) -> np.ndarray:
    """An orange pet that moves to the right, on blue, with white in the left upper corner."""
    picture = np.full((height, width, 3), (30, 90, 160), np.uint8)
    picture[height // 3 : -height // 4, 4 + 2 * number : width // 2 + 2 * number] = (220, 120, 40)
    picture[: height // 6, : width // 6] = 250
    return picture


def tone() -> "av.AudioFrame":
    wave = (0.1 * np.sin(np.arange(2048) / 5)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate = 8000
    return frame


def write_clip(
    path: Path, frames: int = 7, size: tuple[int, int] = (96, 64), rate: Fraction = Fraction(25), sound: bool = False,
    codec: str = "libx264",
) -> Path:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "5"} if codec == "libx264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        track = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(number, *size), format="rgb24")))
        container.mux(stream.encode(None))
        if track is not None:
            container.mux(track.encode(tone()))
            container.mux(track.encode(None))
    return path


def read(path: Path) -> tuple[list[np.ndarray], list[Fraction], tuple[str, Fraction]]:
    """Frames RGB, the time of each in seconds, codec and rate; by PyAV alone, and not turned."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        frames, times = [f.to_ndarray(format="rgb24") for f in decoded], [f.pts * f.time_base for f in decoded]
        return frames, times, (stream.codec_context.name, stream.average_rate)


def turned(path: Path) -> None:
    """Let an MP4 say that it is shown turned by a quarter, clockwise: the matrix of its track, not of the movie."""
    numbers = [(1, 0, 0, 0, 1, 0, 0, 0, 0x4000), (0, 1, 0, -1, 0, 0, 0, 0, 0x4000)]  # in sixteenths of bits, 2.30 last
    upright, quarter = (b"".join((n << 16).to_bytes(4, "big", signed=True) for n in row) for row in numbers)
    content = path.read_bytes()
    place = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:place] + quarter + content[place + len(quarter) :])


@pytest.fixture
def run(make_checkpoint, tmp_path):
    """(source, overrides) -> the rows; predicts into `results`."""
    checkpoint = make_checkpoint(seed=SEED)

    def run(source, *overrides: str) -> list[dict]:
        given = [f"ckpt={checkpoint}", f"source={source}", f"output={tmp_path}/results", "device=cpu", *overrides]
        return predict(compose("predict", given, output_dir=tmp_path))

    return run


def assert_overlaid(found: np.ndarray, predictor: Predictor, original: np.ndarray) -> None:
    """As the predictor's own overlay, up to the coding and colours of half the size, and not as the picture was."""
    expected = np.asarray(predictor(original.copy()).overlay)
    error, colouring = (np.abs(expected.astype(int) - other).mean() for other in (found, original))
    assert error < 15 < 45 < colouring, (error, colouring)


def test_every_frame_comes_back_with_its_classes_over_it(run, make_checkpoint, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", rate=Fraction(30000, 1001))
    (row,) = run(clip, "batch_size=3")
    predictor = Predictor.load(make_checkpoint(seed=SEED))
    original, times, _ = read(clip)
    found, new_times, kind = read(tmp_path / "results/overlays/clip.mp4")
    assert len(found) == len(original) == row["frames"] == 7
    assert kind == ("h264", Fraction(30000, 1001))
    assert new_times == pytest.approx(times, abs=1e-4)
    for new, old in zip(found, original, strict=True):
        assert new.shape == (64, 96, 3)
        assert_overlaid(new, predictor, old)
    described = pd.DataFrame([describe(predictor(frame)) for frame in original])
    shares = [name for name in row if name.startswith("share_")]
    assert len(shares) == 3
    assert [row[name] for name in shares] == pytest.approx(described[shares].mean().tolist(), abs=1e-4)
    assert row["confidence"] == pytest.approx(described["confidence"].min(), abs=1e-3)
    assert [row[side] for side in ("left", "top", "right", "bottom")] == [
        described["left"].min(), described["top"].min(), described["right"].max(), described["bottom"].max(),
    ]  # fmt: skip
    assert (row["width"], row["height"]) == (96, 64)
    files = {path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*/*")}
    assert files == {"overlays/clip.mp4"}


@pytest.mark.parametrize("ending", ["mov", "avi", "mkv"])
def test_other_containers_and_odd_sides(run, make_checkpoint, tmp_path, ending):
    clip = write_clip(tmp_path / f"clip.{ending}", size=(95, 63), codec="mjpeg")
    (row,) = run(clip)
    original, _, _ = read(clip)
    found, times, _ = read(tmp_path / "results/overlays/clip.mp4")
    assert len(found) == row["frames"] == 7
    assert np.diff([float(time) for time in times]) == pytest.approx(np.full(6, 0.04), abs=1e-3)
    assert found[3].shape == (63, 95, 3)
    assert_overlaid(found[3], Predictor.load(make_checkpoint(seed=SEED)), original[3])


def test_a_turned_video_is_predicted_and_written_upright(run, make_checkpoint, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=3)
    turned(clip)
    (row,) = run(clip)
    assert (row["width"], row["height"]) == (64, 96)
    upright = np.rot90(read(clip)[0][0], -1)
    assert upright[2, -3].min() > 200  # the white corner, now on the right
    found = read(tmp_path / "results/overlays/clip.mp4")[0]
    assert_overlaid(found[0], Predictor.load(make_checkpoint(seed=SEED)), upright)


@pytest.mark.parametrize("size", [(96, 64), (95, 63)])
def test_colours_come_back_as_they_were(tmp_path, size):
    """To 3 of 255, by what the file says of its colours, which players go by."""
    colours = np.array([(220, 40, 40), (30, 200, 60), (30, 90, 160), (250, 250, 250)], np.uint8)
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[:] = colours[np.arange(size[0]) * 4 // size[0]]
    with VideoFile(write_clip(tmp_path / "clip.mp4")) as video, _VideoWriter(tmp_path / "new.mp4", video) as writer:
        writer.write([Frame(Image.fromarray(picture), 0)], [])
    (found,), _, _ = read(tmp_path / "new.mp4")
    assert np.abs(found[30, 12::24].astype(int) - colours).max() <= 3


def test_the_sound_is_the_same(run, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", sound=True)
    run(clip, "batch_size=2")
    packets = []
    for path in (clip, tmp_path / "results/overlays/clip.mp4"):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0)])
    assert len(packets[0]) > 1
    assert packets[0] == packets[1]


def test_the_encoder_that_every_build_has(run, tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    run(write_clip(tmp_path / "clip.mp4", rate=Fraction(24)))
    found, _, kind = read(tmp_path / "results/overlays/clip.mp4")
    assert len(found) == 7
    assert kind == ("mpeg4", 24)


def test_a_finished_video_is_left_as_it_is(run, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    (first,) = run(clip)
    result = tmp_path / "results/overlays/clip.mp4"
    before = result.stat().st_mtime_ns
    assert run(clip) == [first]
    assert result.stat().st_mtime_ns == before
    write_clip(clip, frames=4)
    (row,) = run(clip)
    assert row["frames"] == 4 == len(read(result)[0])
    result.unlink()
    run(clip)
    assert len(read(result)[0]) == 4


def test_no_overlays_leave_a_row(run, tmp_path):
    (row,) = run(write_clip(tmp_path / "clip.mp4"), "overlays=false")
    assert row["frames"] == 7
    assert not list((tmp_path / "results").rglob("*/*"))


def test_videos_that_cannot_be_read_do_not_stop_the_others(run, tmp_path, capsys):
    write_clip(tmp_path / "good.mp4")
    whole = write_clip(tmp_path / "cut.mp4", frames=40).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mkv").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        track = container.add_stream("aac", rate=8000, layout="mono")
        container.mux(track.encode(tone()))
        container.mux(track.encode(None))
    Image.new("RGB", (40, 40), "green").save(tmp_path / "a.png")
    names = ("cut.mp4", "empty.mkv", "good.mp4", "sound.mp4", "a.png")
    (tmp_path / "list.txt").write_text("\n".join(names))
    with pytest.raises(InputError, match=r"3 of 5 files are missing: .*cannot be read as a video \(it has no pict"):
        run(tmp_path / "list.txt")
    assert "2 files predicted\n" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "results/predictions.csv")
    assert table["name"].tolist() == ["good", "a"]
    assert table["frames"].fillna(0).tolist() == [7, 0]
    overlays = sorted(path.name for path in (tmp_path / "results/overlays").iterdir())
    assert overlays == ["a.jpg", "good.mp4"]


def test_a_playlist_is_no_video(run, tmp_path):
    """FFmpeg would open what it names: any file of this machine, and any address."""
    secret = write_clip(tmp_path / "secret.mp4")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.mp4").write_text(playlist)
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile {secret}\n")
    os.mkfifo(tmp_path / "c.mp4")
    for name in "abc":
        with pytest.raises(InputError, match=rf"{name}\.mp4: (cannot be read as a video|is a folder, pipe)"):
            run(tmp_path / f"{name}.mp4")
    assert list((tmp_path / "results").rglob("*.mp4")) == []


def test_frames_that_are_too_large(run, tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4: has more than 0\.006 million pixels \(96 x 64\)"):
        run(path, "max_megapixels=0.006")


def test_no_frames(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", frames=0, sound=True)
    with VideoFile(path) as video, pytest.raises(InputError, match=r"cannot be read as a video \(it has no frames\)"):
        list(video.batches(2))


def test_no_more_than_a_batch_is_read_ahead(tmp_path):
    with VideoFile(write_clip(tmp_path / "clip.mp4", frames=9)) as video:
        sizes = [len(frames) for frames, _ in video.batches(4)]
    assert sizes == [4, 4, 1]


def test_an_interrupted_video_leaves_no_file(run, tmp_path, monkeypatch):
    logits = Predictor.logits

    def interrupted(predictor, images):
        if len(images) == 1:  # the last batch
            raise KeyboardInterrupt
        return logits(predictor, images)

    monkeypatch.setattr(Predictor, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(write_clip(tmp_path / "clip.mp4"), "batch_size=3")
    assert not [path for path in (tmp_path / "results").rglob("*") if path.suffix == ".mp4"]


def test_without_the_extra(run, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"clip\.mp4: a video needs pip install 'petseg-lightning\[video\]'"):
        run(clip)
