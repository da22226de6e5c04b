"""The real door in a browser, as people use it; and what it says where it cannot begin."""

import re
import shutil
import socket

import pytest
from PIL import Image
from requests_to_the_app import running_app

pytest.importorskip("fastapi", reason="the extra `app` is not here")

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
DROP = """(text) => {
  const data = new DataTransfer();
  data.items.add(new File([text], "dropped.png", { type: "image/png" }));
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(drop);
  return drop.defaultPrevented;
}"""


@pytest.fixture
def app(make_checkpoint, tmp_path):
    with running_app(tmp_path, f"ckpt={make_checkpoint()}", "max_megapixels=0.3") as app:
        yield app


@pytest.fixture
def page(app):
    """A browser's page, as wide as a phone; nothing may go wrong in it, and nothing leave this machine.

    A browser says in its console what a server refuses.
    """
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not here")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    problems: list[str] = []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on(
            "console", lambda m: problems.append(m.text) if m.type == "error" and "status of" not in m.text else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((app.address, "data:", "blob:")) else problems.append(r.url)
        )
        page.goto(app.address)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert problems == []


def test_clicking_through_the_page(app, page, make_checkpoint, tmp_path):
    picture, broken, large = (tmp_path / name for name in ("my cat.png", "broken.jpg", "large.png"))
    sample_picture(5).save(picture)
    broken.write_bytes(b"no picture")
    Image.new("RGB", (1000, 400)).save(large)

    page.locator("#pictures input").set_input_files([picture, broken, large])
    page.get_by_text("1 picture done").wait_for()
    alerts = page.get_by_role("alert").get_by_role("listitem").all_inner_texts()
    assert [alert[:22] for alert in alerts] == ["broken.jpg: cannot be ", "large.png: has more th"]
    result = page.get_by_role("article", name="Result of my cat.png")
    assert result.get_by_role("row").count() == 4  # of the table: a head and three classes
    expected = Predictor.load(make_checkpoint())(picture)
    for kind, title in (("cutout", "cut-out"), ("overlay", "overlay"), ("mask", "mask")):
        with page.expect_download() as download:
            result.get_by_role("button", name=f"Download the {title} of my cat.png").press("Enter")
        assert download.value.suggested_filename == f"my cat_{kind}.png"
        with Image.open(download.value.path()) as stored:
            assert stored.tobytes() == getattr(expected, kind).tobytes()

    result.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert page.locator(".compare").evaluate("e => getComputedStyle(e).getPropertyValue('--at')") == "100%"
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.lang") == "en"

    page.evaluate(PASTE, "no picture")
    page.get_by_text("pasted.png: cannot be read").wait_for()
    assert page.evaluate(DROP, "no picture")
    page.get_by_text("dropped.png: cannot be read").wait_for()
    page.get_by_role("button", name="Chelsea").press("Enter")
    page.get_by_role("article", name="Result of Chelsea").wait_for()
    with page.expect_file_chooser():
        page.get_by_text("Choose pictures").click()


def test_the_page_tries_again_where_the_server_is_busy(page):
    answers = [503, 503]

    def busy(route):
        if answers:
            detail = '{"detail": "too many pictures wait"}'
            return route.fulfill(status=answers.pop(), headers={"Retry-After": "0"}, body=detail)
        return route.continue_()

    page.route("**/result", busy)
    page.get_by_role("button", name="A drawn dog").click()
    page.get_by_role("article", name="Result of A drawn dog").wait_for()
    assert answers == []


def test_names_of_files_are_shown_and_not_run(page, tmp_path):
    name = "<img src=x onerror=document.title='run'>.png"
    sample_picture(5).save(tmp_path / name, "PNG")
    page.locator("#pictures input").set_input_files([tmp_path / name])
    page.get_by_role("heading", name=name).wait_for()
    assert page.title() == "petseg: cut out pets"


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
    monkeypatch.setattr("petseg_lightning.serving.run.PACKAGES", ("fastapi", "not_installed"))
    with pytest.raises(InputError, match=r"needs not_installed: pip install 'petseg-lightning\[app\]'"):
        serve(compose("app", [f"ckpt={make_checkpoint()}"], output_dir="."))
