"""Connections of clients that are slow, idle, many, or gone; with the sockets of a real server."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from requests_to_the_app import App, encoded, running_app

pytest.importorskip("fastapi", reason="the extra `app` is not here")

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
BODY = HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"

IDLE = 3  # sockets of a server without clients: what it listens on, and a pair of asyncio's own


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[App]:
    with running_app(tmp_path_factory.mktemp("app"), "ckpt=builtin", "timeout=4") as app:
        yield app


def connect(app: App) -> socket.socket:
    return socket.create_connection(("127.0.0.1", app.port), timeout=60)


def everything(app: App, sent: bytes, drip: bytes) -> bytes:
    """What comes until the server ends the connection, to a client that goes on sending a little now and then."""
    received = b""
    with connect(app) as connection, suppress(ConnectionError):
        connection.sendall(sent)
        connection.settimeout(0.1)
        for _ in range(600):
            try:
                connection.sendall(drip)
                more = connection.recv(65536)
            except TimeoutError:
                continue
            if not more:
                return received
            received += more
        return received + b"... and it does not end"
    return received


def until(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a minute."""
    return any(holds() or time.sleep(0.1) for _ in range(600))


def sockets(app: App) -> int:
    links = Path(f"/proc/{app.process.pid}/fd").iterdir()
    return sum(link.is_socket() for link in links)


CASES = {  # what is sent, what is sent again and again, how the answer begins
    "nothing": (b"", b"", b""),
    "letters": (b"", b"x", b""),
    "half a head": (HEAD, b"", b""),
    "a slow head": (HEAD + b"X: ", b"x", b""),
    "no body": (BODY, b"", b"HTTP/1.1 408"),
    "a slow body": (BODY + PART, b"x", b"HTTP/1.1 408"),
    "idle": (GET + b"\r\n", b"", b"HTTP/1.1 200"),
    "idle, then slow": (GET + b"\r\n", b"G", b"HTTP/1.1 200"),
    "a long line": (b"GET /" + b"x" * 100_000, b"", b"HTTP/1.1 400"),
    "many headers": (GET + b"X: y\r\n" * 20_000, b"", b"HTTP/1.1 400"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000, b"1\r\nx\r\n", b"HTTP/1.1 411"),
    "a long length": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"x", b"HTTP/1.1 4"),
    "a large length": (HEAD + b"Content-Length: 999999999\r\n\r\n", b"x", b"HTTP/1.1 413"),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"", b"HTTP/1.1 400"),
    "no host": (b"GET / HTTP/1.0\r\n\r\n", b"", b"HTTP/1.1 421"),
    "two hosts": (GET + b"Host: evil.example\r\n\r\n", b"", b"HTTP/1.1 400"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", b"HTTP/1.1 400"),
    "a websocket": (GET + UPGRADE, b"", b"HTTP/1.1 200"),
}


def test_connections_end(app):
    with ThreadPoolExecutor(len(CASES)) as pool:
        answers = pool.map(lambda case: everything(app, *case[:2]), CASES.values())
    for (name, (_, _, begin)), answer in zip(CASES.items(), answers, strict=True):
        assert answer[: len(begin) or None] == begin, name
        assert not answer.endswith(b"does not end"), name


def test_clients_that_wait_shut_nobody_out(app):
    with ExitStack() as stack:
        for sent in [b"", HEAD, BODY, BODY + PART] * 50:
            with suppress(ConnectionError):
                stack.enter_context(connect(app)).sendall(sent)
        assert app.predict(encoded())[0] == 200
        assert sockets(app) < 100  # of 200


def test_who_does_not_fetch_an_answer_is_left(app):
    assert until(lambda: sockets(app) == IDLE)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", app.port))
        connection.sendall((GET.replace(b"/health", b"/examples/0") + b"\r\n") * 500)  # 20 MB, more than is on the way
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert sockets(app) > IDLE
        assert until(lambda: sockets(app) == IDLE)


def test_uploads_are_gone_from_the_disk(app):
    app.predict(encoded(500, 500) + bytes(3_000_000))
    app.predict(encoded(500, 500)[:-500] + bytes(3_000_000))
    with connect(app) as connection:
        connection.sendall(BODY + PART + bytes(4_000_000))

    def gone() -> bool:
        links = [str(link.readlink()) for link in Path(f"/proc/{app.process.pid}/fd").iterdir() if link.is_symlink()]
        return not any(str(app.temporary) in link for link in links)

    assert until(gone)
    assert [path for path in app.temporary.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_ends_says_so_and_leaves_nothing(tmp_path, way):
    with running_app(tmp_path, "ckpt=builtin") as app, connect(app) as connection:
        connection.sendall(BODY + PART + bytes(3_000_000))
        app.ask("GET", "/health")
        app.process.send_signal(way)
        assert connection.recv(12) == b"HTTP/1.1 503"
        output, _ = app.process.communicate(timeout=60)
        assert "Traceback" not in output
