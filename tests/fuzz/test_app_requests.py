"""Requests that no client would send: each gets one of the app's own answers, in one line."""

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra `app` is not here")

from fastapi.testclient import TestClient
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.run import make_app

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"%s\r\n--x--\r\n"
)
PARTS = st.sampled_from(
    [b"\r\n", b"--x", b"--x--", b"\0", b'"', b";", b"filename*=utf-8''a", b"name=", b"\xff\xd8\xff", b"\r\n\r\n", b"--"]
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 40), st.one_of(PARTS, st.binary(max_size=20))), max_size=5
)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["host", "origin", "sec-fetch-site", "sec-fetch-mode", "content-type", "range", "accept", "cookie"]
    ),
    st.one_of(
        HEADER, st.sampled_from(["127.0.0.1", "multipart/form-data; boundary=x", "multipart/form-data", "[::1]:80"])
    ),
)
PATHS = st.one_of(
    st.sampled_from(["/predict", "/result", "/predict?output=json", "/", "/docs", "/static/page.js", "/examples/0"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30).map(lambda text: "/" + quote(text)),
)
ANSWERS = {200, 206, 400, 403, 404, 405, 408, 411, 413, 416, 421, 422}


@pytest.fixture(scope="module")
def client():
    cfg = compose("app", ["ckpt=builtin"], output_dir=".")
    with TestClient(make_app(cfg, Predictor.load("builtin")), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.new("RGB", (8, 8), "orange").save(path)
    return path.read_bytes()


def check(client, picture, method, path, headers, changes):
    body = bytearray(FORM % picture)
    for start, length, new in changes:
        body[start : start + length] = new
    headers = {"content-type": "multipart/form-data; boundary=x"} | headers
    answer = client.request(
        method, path, content=bytes(body), headers={k: v.encode("latin-1") for k, v in headers.items()}
    )
    assert answer.status_code in ANSWERS, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert len(answer.text.splitlines()) == (method != "HEAD")


ARGUMENTS = {
    "method": st.sampled_from(["GET", "POST", "POST", "POST", "PUT", "OPTIONS", "DELETE", "HEAD"]),
    "path": PATHS,
    "headers": HEADERS,
    "changes": CHANGES,
}
OPTIONS = {"derandomize": True, "deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=100, **OPTIONS)
@given(**ARGUMENTS)
def test_some_requests(client, picture, method, path, headers, changes):
    check(client, picture, method, path, headers, changes)


@pytest.mark.slow
@settings(max_examples=10_000, **OPTIONS)
@given(**ARGUMENTS)
def test_many_requests(client, picture, method, path, headers, changes):
    check(client, picture, method, path, headers, changes)


@pytest.mark.slow
@settings(max_examples=5_000, **OPTIONS)
@given(changes=CHANGES)
def test_many_forms(client, picture, changes):
    check(client, picture, "POST", "/predict?output=mask", {}, changes)
