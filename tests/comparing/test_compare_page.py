"""Comparisons of real, small trainings: what they write is what is read, and the page shows their pictures."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from petseg_lightning.comparing.folders import find_folders
from petseg_lightning.comparing.page import breakable
from petseg_lightning.comparing.pictures import write_pictures
from petseg_lightning.comparing.run import compare
from petseg_lightning.comparing.runs import group, read_runs
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.training import train

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--enable-logging=stderr"),
]
PROBE = """<!DOCTYPE html><iframe src="index.html" style="border:0;width:390px;height:800px"></iframe>
<script>onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    links: [...page.querySelectorAll("nav a")].filter(link => page.querySelector(link.hash)).length,
    pictures: page.images.length,
    loaded: [...page.images].every(one => one.naturalWidth > 0),
  });
};</script>"""
SMALL = (
    *("data=synthetic", "data.num_trainval=42", "data.num_test=11", "data.picture_size=64", "data.image_size=32"),
    *("data.batch_size=4", "data.val_fraction=0.2", "data.num_workers=0", "model.base_channels=4", "trainer=cpu"),
    *("trainer.max_epochs=1", "compute=exact", "~callbacks.progress_bar", "~callbacks.model_summary"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the runs of two learning rates."""
    root = tmp_path_factory.mktemp("trained")
    for job, rate in enumerate(("optimizer.lr=1e-3", "optimizer.lr=1e-2")):
        folder = root / "runs" / str(job)
        (folder / ".hydra").mkdir(parents=True)
        overrides = [*SMALL, f"data.root={root}/pets", rate]
        cfg = compose("train", overrides, output_dir=folder)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
        OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
        train(cfg)
    return root


def compare_runs(runs: Path, folder: Path, *overrides: str) -> Path:
    compare(compose("compare", [f"runs={runs}", "resamples=200", *overrides], output_dir=folder))
    return folder


def test_pictures_are_predicted_again_as_they_were(trained, tmp_path):
    settings = group(read_runs(find_folders([str(trained / "runs")]))[0])
    rows = {str(place): [0, 7] for place in range(2)}
    write_pictures(tmp_path, rows, {str(place): setting for place, setting in enumerate(settings)})
    names = {f"{row:05d}_{kind}" for row in (0, 7) for kind in ("image.jpg", "truth.png", "0.png", "1.png")}
    assert {path.name for path in tmp_path.iterdir()} == names
    for place, setting in enumerate(settings):
        kept = setting.runs[0].folder.path / "pictures"
        listed = {one["image"][:5]: one for one in json.loads((kept / "pictures.json").read_text())}
        for row in (0, 7):
            pictures = [tmp_path / f"{row:05d}_{kind}.png" for kind in ("truth", place)]
            truth, prediction = (np.array(Image.open(path)) for path in pictures)
            right = (truth == prediction).all(-1).mean()  # where the classes are the same, so is the colour
            accuracy = setting.runs[0].folder.per_image["accuracy"][row]
            assert right == pytest.approx(accuracy, abs=0.5 / truth[..., 0].size)
        assert np.array_equal(
            np.array(Image.open(kept / listed["00000"]["truth"])), np.array(Image.open(tmp_path / "00000_truth.png"))
        )


def test_data_that_are_gone_or_others_are_said_so(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "copy")
    settings = group(read_runs(find_folders([str(moved / "runs")]))[0])
    environment = settings[0].runs[0].folder.environment
    environment["data"]["fingerprint"] = "another"
    with pytest.raises(InputError, match="are not those of the runs any more"):
        write_pictures(tmp_path, {"0": [0]}, {"0": settings[0]})
    (trained / "pets").rename(trained / "elsewhere")
    try:
        with pytest.raises(InputError, match="the data are no longer in"):
            write_pictures(tmp_path, {"0": [0]}, {"0": settings[0]})
        folder = compare_runs(moved / "runs", tmp_path / "out")
    finally:
        (trained / "elsewhere").rename(trained / "pets")
    page = (folder / "index.html").read_text().replace("<wbr>", "")
    assert "The pictures are named only, not shown: the data are no longer in" in page
    names = pd.read_csv(moved / "runs" / "0" / "per_image.csv")["name"]
    assert sum(name in page for name in names) == 4
    assert "<img" not in page


def test_the_page_is_one_file_that_names_what_differs(trained, tmp_path):
    folder = compare_runs(trained / "runs", tmp_path / "out", "num_pictures=2")
    page = (folder / "index.html").read_text().replace("<wbr>", "")
    assert page.count('<img src="data:image/webp') == 8
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    details = re.sub("</?span.*?>", "", page[page.index('id="details"') : page.index('id="method"')])
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', details) in (
        [("optimizer.lr", "0.001", "0.01")],
        [("optimizer.lr", "0.01", "0.001")],
    )
    assert "as trained once" in page
    assert "callbacks.progress_bar" in page
    table = pd.read_csv(folder / "comparisons.csv")
    assert f"{table['difference'][0]:+.3f}" in page.replace("\N{MINUS SIGN}", "-")


def test_a_tie_has_no_highest_and_a_highest_without_evidence_says_so(write_run, truths, flipped, tmp_path):
    write_run("a", flipped(truths, 0.1, 0), {"optimizer.lr": 0.1})
    write_run("b", flipped(truths, 0.1, 0), {"optimizer.lr": 0.2})
    page = (compare_runs(tmp_path / "runs", tmp_path / "tie") / "index.html").read_text()
    assert "all share the highest mean IoU" in lede(page)
    assert "no evidence" not in lede(page)
    write_run("c", flipped(truths, 0.101, 1), {"optimizer.lr": 0.3})
    write_run("d", flipped(truths, 0.3, 1), {"optimizer.lr": 0.4})
    page = (compare_runs(tmp_path / "runs", tmp_path / "three", "baseline=0.4") / "index.html").read_text()
    assert "2 share the highest" in lede(page)
    write_run("e", flipped(truths, 0.098, 1), {"optimizer.lr": 0.5})
    page = (compare_runs(tmp_path / "runs", tmp_path / "highest") / "index.html").read_text()
    table = pd.read_csv(tmp_path / "highest" / "comparisons.csv")
    unclear = table["verdict"].str.startswith("no evidence")
    rivals = (unclear & (table[["first", "second"]] == "optimizer.lr=0.5").any(axis=1)).sum()
    assert 0 < rivals < 4
    assert "lr=0.5 has the highest mean IoU, 0.7" in lede(page)
    assert f"but no evidence sets it apart from {rivals} of the others. {(~unclear).sum()} of 10 comp" in lede(page)


def lede(page: str) -> str:
    text = re.search(r'<p class="lede">(.*?)</p>', page, re.DOTALL).group(1)
    return " ".join(re.sub("<.*?>", "", text).split())


def test_every_column_and_picture_has_a_heading_of_its_own(trained, tmp_path):
    page = (compare_runs(trained / "runs", tmp_path / "out", "num_pictures=2") / "index.html").read_text()
    for table in re.findall("<thead>.*?</thead>", page, re.DOTALL)[:2]:
        headings = [re.sub("<.*?>", " ", cell) for cell in re.findall("<th.*?</th>", table)]
        assert all(heading.strip() for heading in headings)
        assert len(headings) == len(set(headings))
    heads = re.findall(r'<div class="four heads">(.*?)</div>', page)
    assert heads == ["<span>picture</span><span>truth</span><span>setting 1</span><span>setting 2</span>"] * 2
    scale = re.search(r'class="scale">(.*?)</th>', page).group(1)
    low, zero, high = re.findall(r"<small>(.*?)</small>", scale)
    assert (zero, low.replace("\N{MINUS SIGN}", "+")) == ("0", high)
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert float(high) == pytest.approx(table[["low", "high"]].abs().max(axis=None), abs=6e-4)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("model.base_channels=16", ["model.", "base_", "channels=", "16"]),
        ("optimizer.lr=1e-3 seed=0.5", ["optimizer.", "lr=", "1e-3", "seed=", "0.5"]),
        ("loss@loss.terms.a=<b>,c/d", ["loss@loss.", "terms.", "a=&lt;b&gt;,", "c/", "d"]),
    ],
)
def test_long_names_break_at_spaces_else_after_signs_and_never_in_numbers(name, pieces):
    words = re.findall('<span class="part">(.*?)</span>', breakable(name))
    assert len(words) == len(name.split())
    assert [piece for word in words for piece in word.split("<wbr>")] == pieces


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_browser_shows_it_on_a_phone_without_an_error(trained, tmp_path):
    folder = compare_runs(trained / "runs", tmp_path / "out")
    (folder / "probe.html").write_text(PROBE)
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    url = (folder / "probe.html").as_uri()
    browser = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r"<title>(.*?)</title>", browser.stdout).group(1))
    assert found == {"width": 390, "links": 5, "pictures": 16, "loaded": True}
    assert "CONSOLE" not in browser.stderr
