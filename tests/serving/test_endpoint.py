"""The endpoint for programs, against what the predictor itself says."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra `app` is not here")

from fastapi.testclient import TestClient

from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.endpoint import make_endpoint
from petseg_lightning.serving.service import Service

WAIT = 20  # seconds, for what never takes them


def encoded(width: int = 60, height: int = 40) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG whose header promises more pixels than any memory has, in a hundred bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


class SlowForSquares(Predictor):
    """Does not finish a square picture before it is allowed to."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.begun, self.released = Event(), Event()

    def finish(self, image, logits):
        if image.width == image.height:
            self.begun.set()
            self.released.wait(WAIT)
        return super().finish(image, logits)


@pytest.fixture
def predictor(make_checkpoint) -> SlowForSquares:
    return SlowForSquares.load(make_checkpoint())


@pytest.fixture
def client(predictor, tmp_path):
    service = Service(predictor, tmp_path, max_megabytes=0.25, max_megapixels=0.01, concurrency=2)
    with TestClient(make_endpoint(service)) as client:
        yield client


def post(client, content: bytes, **query):
    return client.post("/predict", files={"picture": ("cat.png", content)}, params=query)


@pytest.mark.parametrize("kind", ["cutout", "mask", "overlay"])
def test_pictures_are_those_of_the_predictor(client, predictor, kind):
    expected = getattr(predictor(Image.open(io.BytesIO(encoded()))), kind)
    answer = post(client, encoded(), output=kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.mode) == ("PNG", expected.mode)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_a_cutout_is_what_comes_by_default(client):
    assert post(client, encoded()).content == post(client, encoded(), output="cutout").content


def test_json_has_size_areas_box_and_confidence(client, predictor):
    prediction = predictor(Image.open(io.BytesIO(encoded())))
    answer = post(client, encoded(), output="json").json()
    assert (answer["width"], answer["height"]) == (60, 40)
    shares = [(prediction.classes == i).mean() for i in range(3)]
    assert [answer[f"share_{name}"] for name in prediction.class_names] == pytest.approx(shares, abs=1e-6)
    rows, columns = np.nonzero(prediction.classes != prediction.class_names.index("background"))
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [answer[side] for side in ("left", "top", "right", "bottom")] == box
    assert answer["confidence"] == pytest.approx(prediction.confidence, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"not a picture", 422, "cat.png: cannot be read as a picture (it is no JPEG"),
        (encoded()[:-200], 422, "cat.png: cannot be read as a picture"),
        (b"", 422, "cat.png: cannot be read as a picture"),
        (encoded(300, 60), 413, "cat.png: has more than 0.01 million pixels"),
        (bomb(), 413, "cat.png: has more than 0.01 million pixels"),
        (bytes(270_000), 413, "cat.png: has more than 0.25 MB; save it smaller"),
        (bytes(5_000_000), 413, "more than 0.25 MB; save it smaller"),
    ],
    ids=["text", "cut off", "empty", "many pixels", "bomb", "large", "much too large"],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(client, content, status, words):
    answer = post(client, content)
    (message,) = answer.json().values()
    assert (answer.status_code, words in message) == (status, True), message
    assert "\n" not in message
    assert "object at" not in message


def test_a_body_without_a_length_is_not_taken_in(client):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    answer = client.post("/predict", content=body(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["detail"][:20]) == (413, "the picture has more")


def test_wrong_requests_say_what_is_wrong(client):
    assert client.post("/predict").json() == {"detail": "picture: Field required"}
    answer = post(client, encoded(), output="jpeg")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("output: Input should be 'cutout'")


def test_slow_pictures_block_nobody(client, predictor):
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(post, client, encoded(30, 30))
        assert predictor.begun.wait(WAIT)
        assert client.get("/health").json() == {"status": "ok", "classes": ["pet", "background", "border"]}
        assert post(client, encoded()).status_code == 200
        assert not slow.done()
        predictor.released.set()
        assert slow.result().status_code == 200


def test_nothing_is_written(client, tmp_path):
    before = set(tmp_path.rglob("*"))
    post(client, encoded())
    post(client, b"not a picture")
    assert set(tmp_path.rglob("*")) == before


def test_docs_describe_every_operation_and_need_no_other_host(client):
    page = client.get("/docs").text
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in page
            assert all(code in page for code in operation["responses"])
    assert {"200", "413", "422"} <= schema["paths"]["/predict"]["post"]["responses"].keys()
    assert "//" not in page.replace("http://127.0.0.1:7860", "")
