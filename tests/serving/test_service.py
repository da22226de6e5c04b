"""Who waits for whom."""

import asyncio
from io import BytesIO
from threading import Event, Lock

import numpy as np
import pytest
from PIL import Image
from requests_to_the_app import bomb

from petseg_lightning.data.picture_file import TooLargeError
from petseg_lightning.inference.predictor import Prediction, Predictor
from petseg_lightning.serving.service import BusyError, Service, preview

WAIT = 20  # seconds, for what never takes them


def picture(width: int, height: int) -> BytesIO:
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file


@pytest.fixture
def service(make_checkpoint) -> Service:
    return Service(Predictor.load(make_checkpoint()), max_megabytes=1, max_megapixels=1, concurrency=2, timeout=WAIT)


@pytest.mark.parametrize("size", [(1200, 800), (2000, 50)], ids=["many pixels", "many windows"])
def test_large_pictures_come_one_at_a_time_and_ordinary_ones_beside_them(service, monkeypatch, size):
    monkeypatch.setattr("petseg_lightning.serving.service._PIXELS", 900_000)
    inside, begun, small_done = Lock(), Event(), Event()

    def use(prediction: Prediction) -> bool:
        alone = inside.acquire(blocking=False)
        begun.set()
        assert small_done.wait(WAIT)
        prediction.cutout.load()
        if alone:
            inside.release()
        return alone

    async def run() -> list[bool]:
        large = [asyncio.create_task(service.predict("large.png", picture(*size), use)) for _ in range(4)]
        assert await asyncio.to_thread(begun.wait, WAIT)
        for _ in range(3):
            assert await service.predict("small.png", picture(100, 100), lambda one: one.image.size) == (100, 100)
        small_done.set()
        return await asyncio.gather(*large)

    assert asyncio.run(run()) == [True] * 4


def test_bombs_do_not_wait_for_large_pictures_to_be_refused_in_the_end(service):
    with pytest.raises(TooLargeError, match="more than 1 million pixels"):
        asyncio.run(service.predict("bomb.png", BytesIO(bomb()), lambda prediction: prediction))


def test_many_windows_are_those_of_the_predictor(service):
    noise = np.random.default_rng(0).integers(0, 256, (5, 60, 3), np.uint8)
    image = Image.fromarray(noise).resize((1800, 50))
    file = BytesIO()
    image.save(file, "PNG")
    probabilities = asyncio.run(service.predict("wide.png", file, lambda prediction: prediction.probabilities))
    np.testing.assert_array_equal(probabilities, service.predictor(image).probabilities)


def test_what_nobody_waits_for_never_begins(make_checkpoint):
    service = Service(Predictor.load(make_checkpoint()), max_megabytes=1, max_megapixels=1, concurrency=1, timeout=WAIT)
    begun, go_on, used = Event(), Event(), []

    def hold(_: Prediction) -> None:
        begun.set()
        assert go_on.wait(WAIT)

    async def run() -> None:
        first = asyncio.create_task(service.predict("a.png", picture(40, 40), hold))
        assert await asyncio.to_thread(begun.wait, WAIT)
        left = asyncio.create_task(service.predict("b.png", picture(40, 40), used.append))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await first
        await service.predict("c.png", picture(40, 40), lambda _: None)

    asyncio.run(run())
    assert used == []


def test_too_many_are_put_off(service):
    go_on = Event()

    async def run() -> None:
        waiting = [
            asyncio.create_task(service.predict("a.png", picture(40, 40), lambda _: go_on.wait(WAIT)))
            for _ in range(34)
        ]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="too many"):
            await service.predict("b.png", picture(40, 40), lambda _: None)
        go_on.set()
        await asyncio.gather(*waiting)

    asyncio.run(run())


def test_previews_fit_a_screen(service):
    prediction = service.predictor(np.zeros((30, 1500, 3), np.uint8))
    for one in (prediction.image, prediction.cutout, prediction.mask):
        small = Image.open(BytesIO(preview(one, prediction)))
        assert (small.format, small.size) == ("WEBP", (1280, 26))
