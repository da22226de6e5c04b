"""What the page writes, and for how long."""

import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Event, Lock
from time import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra `app` is not here")

from fastapi.testclient import TestClient

from petseg_lightning.config import compose
from petseg_lightning.inference.predictor import Prediction, Predictor
from petseg_lightning.serving.run import make_app
from petseg_lightning.serving.service import KINDS, Service


@pytest.fixture
def service(make_checkpoint, tmp_path) -> Service:
    folder = tmp_path / "app"
    for name in ("results", "uploads"):
        (folder / name).mkdir(parents=True)
    return Service(Predictor.load(make_checkpoint()), folder, max_megabytes=1, max_megapixels=1, concurrency=1)


def test_stored_results_are_those_of_the_predictor_in_full_and_small(service):
    noise = np.random.default_rng(0).integers(0, 256, (30, 1500, 3), np.uint8)
    prediction = service.predictor(noise)
    folder = service.folder / "results" / service.store(prediction)
    for kind in KINDS:
        with Image.open(folder / f"{kind}.png") as stored:
            np.testing.assert_array_equal(np.asarray(stored), np.asarray(getattr(prediction, kind)))
    for kind in (*KINDS, "picture"):
        with Image.open(folder / f"{kind}.webp") as preview:
            assert preview.size == (1280, 26)


def test_only_what_is_old_is_removed(service):
    results, uploads = service.folder / "results", service.folder / "uploads"
    for folder in (results / "old", results / "new"):
        folder.mkdir()
        (folder / "mask.png").touch()
    for path in (uploads / "tmpold", uploads / "tmpnew", uploads / "example"):
        path.touch()
    for path in (results / "old", uploads / "tmpold", uploads / "example"):
        os.utime(path, (time() - 700,) * 2)
    service.remove_older(600)
    assert sorted(path.name for path in service.folder.glob("*/*")) == ["example", "new", "tmpnew"]


def test_large_pictures_come_one_at_a_time_and_small_ones_between(service, monkeypatch):
    monkeypatch.setattr("petseg_lightning.serving.service.LARGE", 100 * 100)
    files = {}
    for side in (100, 101):
        files[side] = BytesIO()
        Image.new("RGB", (side, side)).save(files[side], "PNG")
    inside, begun, small_done = Lock(), Event(), Event()

    def use(prediction: Prediction) -> bool:
        alone = inside.acquire(blocking=False)
        begun.set()
        assert small_done.wait(20)
        prediction.cutout.load()
        if alone:
            inside.release()
        return alone

    with ThreadPoolExecutor(4) as pool:
        large = [pool.submit(service.predict, "large.png", BytesIO(files[101].getvalue()), use) for _ in range(4)]
        assert begun.wait(20)
        assert service.predict("small.png", files[100], lambda prediction: prediction.image.size) == (100, 100)
        small_done.set()
        assert all(future.result() for future in large)


def test_the_server_removes_what_is_old_while_it_runs(make_checkpoint, monkeypatch, tmp_path):
    removed = Event()
    monkeypatch.setattr(Service, "remove_older", lambda _, seconds: seconds == 600 and removed.set())
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back in the end
    monkeypatch.setattr("petseg_lightning.serving.page.SWEEP", 1)
    cfg = compose("app", ["ckpt=x"], output_dir=".")
    with TestClient(make_app(cfg, Predictor.load(make_checkpoint()), tmp_path)):
        assert removed.wait(20)
