"""Nothing asks the network for what nobody asked for, and no library reports on its use."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import petseg_lightning
from petseg_lightning.data.drawing.picture import sample_picture

HOOK = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None  # None: not of the internet
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open(os.environ["ASKED"], "a") as file:
            print(event, host, file=file)
        raise OSError("a test has no network")

sys.addaudithook(watch)
"""
IMPORT_ALL = """
import importlib, pkgutil, petseg_lightning
for module in pkgutil.walk_packages(petseg_lightning.__path__, "petseg_lightning."):
    importlib.import_module(module.name)
import albumentations, nncf, onnxruntime, openvino, ray, timm
"""
SET_BY_US = ("NO_ALBUMENTATIONS_UPDATE", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
ELSEWHERE = re.compile(r'AF_INET6?, .*inet_(?:addr|pton)\((?:AF_INET6, )?"(?!127\.|::1"|0\.0\.0\.0|::ffff:127\.)')
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o")
DATA = ("data=synthetic", "data.num_trainval=24", "data.num_test=6", "data.picture_size=48")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Of somebody who has never started any of it."""
    return tmp_path_factory.mktemp("home")


@functools.cache
def strace_works() -> bool:
    return (
        shutil.which("strace") is not None
        and subprocess.run([*STRACE, os.devnull, "true"], check=False).returncode == 0
    )


@pytest.fixture
def watched(tmp_path, home, monkeypatch):
    """(arguments of Python...) -> its process, on whose end nothing may have been asked of another machine.

    Every Python process has a hook that sees its sockets; those of compiled libraries are seen by strace if it is here.
    """
    hooks, asked, calls = tmp_path / "hooks", tmp_path / "asked", tmp_path / "calls"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    environment = {key: value for key, value in os.environ.items() if key not in (*SET_BY_US, "XDG_CACHE_HOME", "CI")}
    path = os.pathsep.join([str(hooks), str(Path(petseg_lightning.__file__).parents[1])])
    environment |= {"PYTHONPATH": path, "ASKED": str(asked), "HOME": str(home)}
    tracer = [*STRACE, str(calls)] if strace_works() else []

    @contextmanager
    def start(*arguments: str) -> Iterator[subprocess.Popen]:
        process = subprocess.Popen(
            [*tracer, sys.executable, *arguments],
            cwd=tmp_path, env=environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert not asked.exists(), asked.read_text()
        native = calls.read_text().splitlines() if tracer else []
        assert [line for line in native if ELSEWHERE.search(line)] == []
        assert not list(home.rglob("*telemetry*")) + list(home.rglob("deviceid")) + list(home.glob("intel"))

    return start


@pytest.fixture
def petseg(watched, tmp_path) -> Callable[..., None]:
    """(command, overrides...): it runs to its end, and leaves something."""

    def run(command: str, *overrides: str) -> None:
        with watched("-m", f"petseg_lightning.{command}", *overrides, "hydra.run.dir=here"):
            pass
        assert list(tmp_path.glob("here/*"))

    return run


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> str:
    return f"data.root={tmp_path_factory.mktemp('pets')}"


def test_the_watch_sees_what_asks(watched):
    """With albumentations alone, whose import asks for its newest version."""
    with pytest.raises(AssertionError, match=r"^socket\.getaddrinfo"), watched("-c", "import albumentations"):
        pass


def test_every_import(watched):
    with watched("-c", IMPORT_ALL):
        pass


def test_a_training_with_augmentation(petseg, pets):
    petseg(
        *("train", *DATA, pets, "data.image_size=32", "data.batch_size=4", "data.num_workers=2", "augmentation=strong"),
        *("model.base_channels=4", "trainer=cpu", "trainer.max_epochs=1"),
    )


def test_an_evaluation(petseg, pets):
    petseg("evaluate", "ckpt=builtin", *DATA, pets, "trainer=cpu")


def test_a_prediction(petseg, tmp_path):
    sample_picture(0, 64).save(tmp_path / "cat.png")
    petseg("predict", "ckpt=builtin", "source=cat.png", "output=here")


@pytest.mark.parametrize("kind", ["bundle", "onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_export(petseg, kind):
    pytest.importorskip({"bundle": "torch"}.get(kind, kind))
    petseg("export", "ckpt=builtin", f"format={kind}", "out=here")


@pytest.mark.slow
def test_an_export_in_int8(petseg, pets):
    pytest.importorskip("nncf")
    data = ("data=synthetic", "data.num_trainval=60", "data.num_test=6", "data.picture_size=160", pets)
    petseg("export", "ckpt=builtin", "format=openvino", "precision=int8", *data, "out=here")


def test_the_app_and_a_request(watched):
    pytest.importorskip("uvicorn")
    with watched("-m", "petseg_lightning.app", "ckpt=builtin", "port=0") as process:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        assert b"<html" in urllib.request.urlopen(address, timeout=60).read()
        os.killpg(process.pid, signal.SIGINT)
