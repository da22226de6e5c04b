"""Many clients, some of them hostile: every answer is right, ordinary ones come soon, and memory stays."""

import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytest
from requests_to_the_app import App, bomb, encoded, form, png_chunks, running_app

pytest.importorskip("fastapi", reason="the extra `app` is not here")

SECONDS, CLIENTS, HOSTILE = 60, 8, 0.2
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{ } loop\nshowpage\n%%EOF\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
SLOW = POST + b"Content-Length: 5000\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"


def hostile_files(rng: random.Random) -> dict[str, tuple[bytes, set[int]]]:
    """Files, with what may be answered."""
    return {
        "bomb": (bomb(), {413, 422}),
        "bomb of one row": (bomb(100_000_000, 1), {413, 422}),
        "text": (b"not a picture", {422}),
        "nothing": (b"", {422}),
        "cut off": (encoded(600, 400, "JPEG")[:-9000], {422}),
        "program": (EPS, {422}),
        "many chunks": (png_chunks(*[(b"tEXt", b"")] * 200_000), {422}),
        "too many bytes": (bytes(27_000_000), {413}),
        "large": (encoded(4000, 4000), {200, 503}),
        "random": (rng.randbytes(100_000), {422}),
        **{f"bent {number}": (bent(encoded(600, 400, "JPEG"), rng), {200, 422}) for number in range(5)},
    }


def attack(app: App, files: dict[str, tuple[bytes, set[int]]], rng: random.Random) -> tuple[str, bool]:
    """What a hostile client does, and whether the answer is one of those that it may be."""
    body, headers = form(encoded())
    requests = {
        "foreign host": ({"Host": "pets.evil.example"}, {421}),
        "foreign page": ({"Origin": "http://evil.example"}, {403}),
        "no boundary": ({"Content-Type": "multipart/form-data"}, {400, 422}),
        "other boundary": ({"Content-Type": "multipart/form-data; boundary=y"}, {400, 422}),
        "no form": ({"Content-Type": "image/png"}, {422}),
    }
    kind = rng.choice([*files, *requests, "path", "slow", "gone"])
    if kind in files:
        content, allowed = files[kind]
        return kind, app.predict(content)[0] in allowed
    if kind in requests:
        further, allowed = requests[kind]
        return kind, app.ask("POST", "/predict", body, **headers | further)[0].status in allowed
    if kind == "path":
        body = b'--x\r\nContent-Disposition: form-data; name="picture"\r\n\r\n/etc/passwd\r\n--x--\r\n'
        answer, _ = app.ask("POST", "/predict", body, Content_Type="multipart/form-data; boundary=x")
        return kind, answer.status == 422
    with socket.create_connection(("127.0.0.1", app.port), timeout=60) as connection:
        if kind == "slow":
            connection.sendall(SLOW)
            time.sleep(rng.random())  # the client's own pace
        else:
            connection.sendall(POST + as_bytes(headers, body) + body)
    return kind, True


def as_bytes(headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()] + [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode()


def bent(content: bytes, rng: random.Random) -> bytes:
    """A file of which some bytes are others."""
    some = bytearray(content)
    for _ in range(10):
        some[rng.randrange(len(some))] = rng.randrange(256)
    return bytes(some)


def resident(app: App) -> float:
    """Memory of the server in MB."""
    status = Path(f"/proc/{app.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.slow
def test_ordinary_pictures_come_soon_and_right_among_hostile_ones(tmp_path):
    files = hostile_files(random.Random(0))
    with running_app(tmp_path, "ckpt=builtin") as app:
        ordinary = [
            (encoded(width, height, kind), output)
            for width, height, kind in ((600, 400, "JPEG"), (451, 300, "PNG"), (1280, 853, "JPEG"), (500, 500, "WEBP"))
            for output in ("cutout", "mask", "overlay", "json")
        ]
        expected = [app.predict(*one) for one in ordinary]  # one after the other
        assert {status for status, _ in expected} == {200}
        hostile, wrong, latencies, memory = Counter(), [], [], []
        end = time.monotonic() + SECONDS

        def client(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < end:
                if rng.random() < HOSTILE:
                    try:
                        kind, right = attack(app, files, rng)
                    except (OSError, HTTPException) as error:
                        kind, right = repr(error), False
                    hostile[kind] += 1
                    if not right:
                        wrong.append(kind)
                    continue
                which = rng.randrange(len(ordinary))
                begun = time.monotonic()
                answer = app.predict(*ordinary[which])
                latencies.append(time.monotonic() - begun)
                if answer != expected[which]:
                    wrong.append((which, answer[0], answer[1][:200]))

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            while time.monotonic() < end:
                memory.append(resident(app))
                time.sleep(1)
            for one in clients:
                one.result()
    median, late, latest = np.quantile(latencies, [0.5, 0.99, 1])
    print(f"\n{len(latencies)} ordinary: median {median:.3f} s, 99 % {late:.3f} s, worst {latest:.3f} s; {hostile}")
    print(f"MB: {memory[0]:.0f} at first, {memory[len(memory) // 3]:.0f} after a third, {memory[-1]:.0f} in the end")
    assert wrong == []
    assert latest < 5
    assert memory[-1] < memory[len(memory) // 3] + 200
