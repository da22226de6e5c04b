import json
import re
import shutil
import subprocess

import pytest

from petseg_lightning.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--enable-logging=stderr"),
]
PROBE = """<!DOCTYPE html><iframe src="report.html" style="border:0;width:390px;height:800px"></iframe>
<script>onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const circle = page.querySelector("circle"), name = circle.querySelector("title").textContent;
  circle.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  const tip = page.getElementById("tip");
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    links: [...page.querySelectorAll("nav a")].filter(link => page.querySelector(link.hash)).length,
    tip: !tip.hidden && tip.textContent === name,
    loaded: [...page.images].every(one => one.naturalWidth > 0),
  });
};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_browser_shows_it_on_a_phone_without_an_error(run_folder, tmp_path):
    write_report(run_folder)
    (run_folder / "probe.html").write_text(PROBE)
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (run_folder / "probe.html").as_uri()
    browser = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r"<title>(.*?)</title>", browser.stdout).group(1))
    assert found == {"width": 390, "links": 10, "tip": True, "loaded": True}
    assert "CONSOLE" not in browser.stderr
