"""The endpoint for programs, against what the predictor itself says."""

import asyncio
import io
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event

import numpy as np
import pytest
from PIL import Image
from requests_to_the_app import bomb, encoded, form

pytest.importorskip("fastapi", reason="the extra `app` is not here")

from fastapi.testclient import TestClient

from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.endpoint import make_endpoint
from petseg_lightning.serving.service import Service

WAIT = 20  # seconds, for what never takes them


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
def client(predictor):
    service = Service(predictor, max_megabytes=0.25, max_megapixels=0.01, concurrency=2, timeout=WAIT)
    with TestClient(make_endpoint(service), base_url="http://127.0.0.1") as client:
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
    answer = client.post(
        "/predict", content=iter([b"--x"]), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (answer.status_code, "Content-Length" in answer.json()["detail"]) == (411, True)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({}, 422, "picture: is missing; send it as"),
        ({"data": {"picture": "/etc/passwd"}}, 422, "picture: is missing"),
        ({"json": {"picture": {"path": "/etc/passwd"}}}, 422, "picture: is missing"),
        ({"content": encoded(), "headers": {"content-type": "image/png"}}, 422, "picture: is missing"),
        ({"files": {"image": encoded()}}, 422, "picture: is missing"),
        ({"files": {"picture": (None, "/etc/passwd")}}, 422, "picture: is missing"),
        ({"files": [("picture", encoded())] * 2}, 400, "Too many files"),
        ({"files": [("x", (None, "y"))] * 9}, 400, "Too many fields"),
        ({"files": {"x": (None, "y" * 2000)}}, 400, "Part exceeded"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "Missing boundary"),
        ({"content": b"--y", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "Invalid multipart"),
        ({"files": {"picture": encoded()}, "params": {"output": "jpeg"}}, 422, "output: Input should be 'cutout'"),
    ],
)
def test_wrong_requests_say_what_is_wrong(client, request_, status, words):
    answer = client.post("/predict", **request_)
    assert (answer.status_code, answer.json()["detail"][: len(words)]) == (status, words)
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd: "),
        ("C:\\pets\\tom.jpg", "tom.jpg: "),
        ("a\x1b[31m\u2028b.png", "a[31mb.png: "),
        ("x" * 2000 + ".png", "x" * 96 + ".png: "),
        ("", "picture: is missing"),
    ],
)
def test_names_of_files_are_no_paths_and_fit_into_a_line(client, name, shown):
    answer = client.post("/predict", files={"picture": (name, b"no picture")})
    assert (answer.status_code, answer.json()["detail"][: len(shown)]) == (422, shown)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("OPTIONS", "/predict", 405),
        ("DELETE", "/health", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/gradio_api/file=/etc/passwd", 404),
        ("GET", "/%ff%00", 404),
        ("POST", "/predict/", 404),
    ],
)
def test_other_methods_and_paths_are_not_there(client, method, path, status):
    assert client.request(method, path, follow_redirects=False).status_code == status


def test_what_nobody_foresaw_is_answered_in_a_line_and_logged(client, predictor, monkeypatch, caplog):
    monkeypatch.setattr(predictor, "finish", lambda *_: 1 / 0)
    answer = post(client, encoded())
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "cat.png: cannot be predicted; the log of the server says why",
    )
    assert "ZeroDivisionError" in caplog.text


def test_slow_pictures_block_nobody(client, predictor):
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(post, client, encoded(30, 30))
        assert predictor.begun.wait(WAIT)
        assert client.get("/health").json() == {"status": "ok", "classes": ["pet", "background", "border"]}
        assert post(client, encoded()).status_code == 200
        assert not slow.done()
        predictor.released.set()
        assert slow.result().status_code == 200


def test_what_takes_too_long_is_put_off(predictor):
    service = Service(predictor, max_megabytes=1, max_megapixels=1, concurrency=1, timeout=0.2)
    with TestClient(make_endpoint(service), base_url="http://127.0.0.1") as client:
        answer = post(client, encoded(30, 30))
        predictor.released.set()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["detail"] == "cat.png: not done within 0.2 seconds; try again in 2 seconds"


def test_what_is_too_much_is_put_off(client, predictor):
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(post, client, encoded(30, 30)) for _ in range(50)]
        assert predictor.begun.wait(WAIT)
        done, _ = wait(answers, WAIT, FIRST_COMPLETED)
        predictor.released.set()
        assert [answer.result().status_code for answer in done] == [503] * len(done)
    assert {answer.result().status_code for answer in answers} == {200, 503}
    assert post(client, encoded()).status_code == 200


def test_a_picture_whose_client_has_left_is_not_predicted(predictor):
    finished = []
    predictor.finish = lambda image, logits: (
        finished.append(image.size) or SlowForSquares.finish(predictor, image, logits)
    )
    service = Service(predictor, max_megabytes=1, max_megapixels=1, concurrency=1, timeout=WAIT)
    app = make_endpoint(service)

    async def ask(width: int, height: int, leave: asyncio.Event) -> list[dict]:
        body, headers = form(encoded(width, height))
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers | {"Host": "localhost"}).items()]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": raw}
        received, sent = [{"type": "http.request", "body": body}], []

        async def receive() -> dict:
            if received:
                return received.pop()
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent

    async def run() -> None:
        stay, leave = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(ask(30, 30, stay))
        assert await asyncio.to_thread(predictor.begun.wait, WAIT)
        second = asyncio.create_task(ask(60, 40, leave))
        leave.set()
        await second
        predictor.released.set()
        assert (await first)[0]["status"] == 200

    asyncio.run(run())
    assert finished == [(30, 30)]


def test_docs_describe_every_operation_and_need_no_other_host(client):
    page = client.get("/docs").text
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in page
            assert all(code in page for code in operation["responses"])
    assert {"200", "413", "422", "503"} <= schema["paths"]["/predict"]["post"]["responses"].keys()
    assert "http://127.0.0.1/predict" in page
    assert "//" not in page.replace("http://127.0.0.1", "")
