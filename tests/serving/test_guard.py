"""Requests that are not for this app, though a browser on this machine sends them."""

import pytest

pytest.importorskip("fastapi", reason="the extra `app` is not here")

from fastapi.testclient import TestClient
from requests_to_the_app import encoded

from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.endpoint import make_endpoint
from petseg_lightning.serving.guard import own_names
from petseg_lightning.serving.service import Service


@pytest.fixture
def client(make_checkpoint):
    service = Service(Predictor.load(make_checkpoint()), 1, 1, concurrency=1, timeout=20)
    app = make_endpoint(service, "127.0.0.1", ["Pets.Example.org"])
    with TestClient(app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000)) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7860",
        "127.0.0.1",
        "localhost:7860",
        "LOCALHOST",
        "[::1]:7860",
        "pets.example.org",
        "PETS.example.org:80",
    ],
)
def test_own_names_are_answered(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:7860",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evilpets.example.org",
        ),
        *("192.168.1.7", "0.0.0.0", "2130706433", "[::2]:7860", "127.0.0.1:7860@evil.example", "evil@127.0.0.1", ""),
        *("127.0.0.1/x", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1, evil.example", "*"),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/", "/docs", "/predict"])
def test_other_hosts_are_refused(client, host, path):
    answer = client.request("POST" if path == "/predict" else "GET", path, headers={"host": host})
    assert answer.status_code == 421
    assert "is not a name of this app" in answer.json()["detail"]


def test_the_address_on_which_a_connection_came_in_is_a_name(client):
    here = TestClient(client.app, base_url="http://192.168.1.7:7860")  # as where 0.0.0.0 is listened on
    assert here.get("/health").status_code == 200
    assert here.get("/health", headers={"host": "192.168.1.8:7860"}).status_code == 421


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://localhost:7860"},
        {"origin": "http://127.0.0.1:7860.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
    ],
)
def test_pages_of_other_sites_are_refused(client, method, headers):
    answer = client.request(method, "/predict" if method == "POST" else "/health", headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"detail": "the request comes from a page of another site"})
    assert "access-control-allow-origin" not in answer.headers


def test_forms_of_other_sites_are_refused_and_links_are_not(client):
    from_elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/docs", headers=from_elsewhere).status_code == 200
    assert client.post("/predict", headers=from_elsewhere, files={"picture": encoded()}).status_code == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:7860", "https://127.0.0.1:7860"])
def test_the_own_page_is_answered(client, origin):
    headers = {"origin": origin, "sec-fetch-site": "same-origin"}
    assert client.post("/predict", headers=headers, files={"picture": encoded()}).status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/docs", 200), ("/nowhere", 404), ("/predict", 405)])
def test_every_answer_tells_browsers_to_run_nothing_foreign(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


def test_a_machine_is_called_by_its_name_only_where_others_reach_it(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Laptop")
    assert own_names("127.0.0.1", []) == own_names("::1", []) == {"127.0.0.1", "::1", "localhost"}
    assert own_names("0.0.0.0", ["p.org"]) >= {"laptop", "laptop.local", "localhost", "0.0.0.0", "p.org"}
