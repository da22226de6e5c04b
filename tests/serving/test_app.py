"""The real door in a browser, as people use it; and what it says where it cannot begin."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra `app` is not here")

from petseg_lightning.config import compose
from petseg_lightning.data.drawing.picture import sample_picture
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.serving.run import serve

CHROMIUM = shutil.which("chromium")
PASTE = """(text) => {
  const data = new DataTransfer();
  data.items.add(new File([text], "pasted.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


@pytest.fixture
def app(make_checkpoint, tmp_path):
    """The address of the door's server, and its temporary folder; it ends as a service does."""
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "petseg_lightning.app", f"ckpt={make_checkpoint()}", "port=0", "device=cpu"]
    process = subprocess.Popen(
        [*command, "max_megapixels=0.3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line + process.stdout.read()
        yield address[0], tmp_path / "tmp"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", None)
        assert process.returncode == 0
        assert list((tmp_path / "tmp").glob("petseg*")) == []
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(app):
    """A browser's page, as wide as a phone; nothing may go wrong in it, and nothing leave this machine."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not here")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    problems: list[str] = []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((app[0], "data:", "blob:")) else problems.append(r.url))
        page.goto(app[0])
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert problems == []


def test_clicking_through_the_page(app, page, make_checkpoint, tmp_path):
    picture, broken, large = (tmp_path / name for name in ("my cat.png", "broken.jpg", "large.png"))
    sample_picture(5).save(picture)
    broken.write_bytes(b"no picture")
    Image.new("RGB", (1000, 400)).save(large)
    upload = page.locator("#pictures input[type=file]")
    upload.wait_for(state="attached")

    upload.set_input_files([picture, broken, large])
    page.get_by_text("1 picture done").wait_for()
    alerts = page.locator("#status [role=alert] li").all_inner_texts()
    assert [alert[:22] for alert in alerts] == ["broken.jpg: cannot be ", "large.png: has more th"]
    result = page.get_by_role("article", name="Result of my cat.png")
    assert result.get_by_role("row").count() == 4  # of the table: a head and three classes
    with page.expect_download() as download:
        result.get_by_role("link", name="Download the cut-out of my cat.png").click()
    assert download.value.suggested_filename == "my cat_cutout.png"
    expected = Predictor.load(make_checkpoint())(picture).cutout
    with Image.open(download.value.path()) as stored:
        assert stored.tobytes() == expected.tobytes()

    result.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert page.locator(".compare").evaluate("e => getComputedStyle(e).getPropertyValue('--at')") == "100%"
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    uploaded = picture.read_bytes(), broken.read_bytes()
    assert [path for path in app[1].rglob("*") if path.is_file() and path.read_bytes() in uploaded] == []

    page.evaluate(PASTE, "no picture")
    page.get_by_text("pasted.png: cannot be read").wait_for()
    page.get_by_role("button", name="Thumbnail 1 of 2").press("Enter")
    page.get_by_role("article", name="Result of Chelsea").wait_for()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ckpt=nowhere.ckpt", "nowhere.ckpt"),
        ("device=cuda:77", "device=cuda:77 cannot be used here"),
        ("host=nowhere.invalid", "host=nowhere.invalid port=0 cannot be listened on"),
        ("examples=nowhere", "nowhere: no pictures there"),
    ],
)
def test_what_keeps_it_from_beginning_is_said(make_checkpoint, override, words):
    with pytest.raises(InputError, match=re.escape(words)):
        serve(compose("app", [f"ckpt={make_checkpoint()}", "port=0", "device=cpu", override], output_dir="."))


def test_a_port_in_use(make_checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port={port} cannot be listened on .*; give another port="):
            serve(compose("app", [f"ckpt={make_checkpoint()}", f"port={port}"], output_dir="."))


def test_missing_packages(make_checkpoint, monkeypatch):
    monkeypatch.setattr("petseg_lightning.serving.run.PACKAGES", ("gradio", "not_installed"))
    with pytest.raises(InputError, match=r"needs not_installed: pip install 'petseg-lightning\[app\]'"):
        serve(compose("app", [f"ckpt={make_checkpoint()}"], output_dir="."))
