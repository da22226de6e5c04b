"""Requests and files, as people and strangers send them."""

import io
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import numpy as np
from PIL import Image

BOUNDARY = "0123456789abcdef"


def encoded(width: int = 60, height: int = 40, kind: str = "PNG") -> bytes:
    """A picture of soft colours."""
    noise = np.random.default_rng(width).integers(0, 256, (5, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, kind)
    return buffer.getvalue()


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG whose header promises more pixels than any memory has, in a hundred bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))


def form(content: bytes, name: str = "cat.png", field: str = "picture") -> tuple[bytes, dict[str, str]]:
    """The body of a request with a file, and its headers."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass
class App:
    """A running app."""

    port: int
    process: subprocess.Popen
    temporary: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        """An answer and its content, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def predict(self, content: bytes, output: str = "mask", **headers: str) -> tuple[int, bytes]:
        body, form_headers = form(content)
        answer, content = self.ask("POST", f"/predict?output={output}", body, **form_headers, **headers)
        return answer.status, content


@contextmanager
def running_app(folder: Path, *overrides: str) -> Iterator[App]:
    """The door in a process of its own; it ends as a service does, says nothing, and leaves nothing behind."""
    temporary, here = folder / "tmp", folder / "here"
    temporary.mkdir()
    here.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "petseg_lightning.app", "port=0", "device=cpu", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=here,
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert port, line + process.stdout.read()
        yield App(int(port[1]), process, temporary)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=60) == ("", None)
        assert process.returncode == 0
        assert [path for path in (*temporary.rglob("*"), *here.rglob("*")) if path.is_file()] == []
    finally:
        process.kill()
        process.wait()
