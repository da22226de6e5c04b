"""What the page's own addresses give, to a client that is no browser."""

from io import BytesIO

import pytest
from PIL import Image
from requests_to_the_app import encoded

pytest.importorskip("fastapi", reason="the extra `app` is not here")

from fastapi.testclient import TestClient

from petseg_lightning.config import compose
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.run import make_app


@pytest.fixture
def examples(tmp_path):
    (tmp_path / "pets").mkdir()
    for name in ("a.png", "b&b.png"):
        (tmp_path / "pets" / name).write_bytes(encoded(600, 400))
    return tmp_path / "pets"


@pytest.fixture
def client(make_checkpoint, examples):
    cfg = compose("app", ["ckpt=x", f"examples={examples}"], output_dir=".")
    with TestClient(make_app(cfg, Predictor.load(make_checkpoint())), base_url="http://127.0.0.1") as client:
        yield client


def test_examples_are_those_of_the_folder(client, examples):
    page = client.get("/").text
    assert page.count('data-href="examples/') == 2
    assert "b&amp;b.png" in page
    assert client.get("/examples/1").content == (examples / "b&b.png").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        *("/examples/2", "/examples/-1", "/examples/a.png", "/examples/..%2f..%2fa.ckpt", "/examples//etc/passwd"),
        *("/static/../run.py", "/static/..%2frun.py", "/static//etc/passwd", "/static/%2e%2e/chelsea.jpg", "/static"),
        *("/results", "/upload", "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/proxy=http://127.0.0.1/"),
    ],
)
def test_no_other_file_is_given(client, path):
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (404, 422)
    assert len(answer.content) < 300


def test_an_example_that_is_gone_is_not_there(client, examples):
    (examples / "a.png").unlink()
    assert client.get("/examples/0").status_code == 404


def test_a_result_holds_all_that_it_shows(client):
    answer = client.post("/result", files={"picture": ("<i>tom.png", encoded())})
    assert answer.status_code == 200
    assert "<i>" not in answer.text
    assert answer.text.count('src="data:image/webp;base64,') == 5
    assert "style=" not in answer.text  # the policy of the page forbids it
    assert "40 pixels" in answer.text


def test_a_bad_picture_is_told_in_a_line(client):
    assert client.post("/result", files={"picture": ("tom.png", b"x")}).status_code == 422


def test_a_page_without_examples(make_checkpoint):
    cfg = compose("app", ["ckpt=x"], output_dir=".")
    with TestClient(make_app(cfg, Predictor.load(make_checkpoint())), base_url="http://127.0.0.1") as client:
        assert client.get("/").text.count('data-href="examples/') == 2
        assert Image.open(BytesIO(client.get("/examples/0").content)).size == (451, 300)
