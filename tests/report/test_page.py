import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from petseg_lightning.errors import InputError
from petseg_lightning.report.page import embed, flatten, number, percent, signed, write_report

ABSENT, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
VOID = {"meta", "link", "img", "br", "line", "circle", "polyline"}
SECTIONS = [
    "scores",
    "pictures",
    "learning",
    "classes",
    "images",
    "confidence",
    "breeds",
    "failures",
    "protocols",
    "run",
]


class Page(HTMLParser):
    """The text of each section and table row, and every tag with its attributes; unbalanced tags fail."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.open, self.tags = html, list[str](), list[tuple[str, dict[str, str | None]]]()
        self.sections, self.section = defaultdict(str), "head"
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.sections[self.section] += f" {' '.join(data.split())} " if data.strip() else ""

    def text(self, section: str) -> str:
        return " ".join(self.sections[section].split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_headline_scores_stand_beside_the_papers(run_folder, edit_metrics):
    def change(metrics):
        metrics["splits"]["train"]["protocols"]["trimap"]["accuracy"] = 0.9184
        metrics["splits"]["test"]["protocols"]["trimap"] |= {
            "accuracy": 0.8461, "miou": 0.6482, "lowest_image_miou": 0.2007,
            "iou": {"pet": 0.7163, "background": 0.8327, "border": 0.3942},
        }  # fmt: skip

    edit_metrics(change)
    page = report(run_folder)
    scores = page.text("scores")
    assert "Accuracy 0.846 paper 0.81 +0.036" in scores
    assert "Mean IoU 0.648 paper 0.627 +0.021" in scores
    assert "Lowest picture 0.201 paper 0.142 +0.059" in scores
    assert "Over-fitting gap 0.072 paper 0.05 +0.022" in scores
    assert "84.6% of all pixels get the right class and the mean IoU is 0.648 ." in page.text("head")
    assert "The hardest class is border , with an IoU of 0.394." in page.text("head")


def test_every_split_and_protocol_has_its_row(run_folder, edit_metrics):
    edit_metrics(lambda m: [one.update(accuracy=0.111) for one in m["splits"]["test"]["original"].values()])
    page = report(run_folder)
    splits = json.loads((run_folder / "metrics.json").read_text())["splits"]
    keys = ("accuracy", "miou", "mean_dice")
    for split, values in splits.items():
        row = [f"{values['protocols']['trimap'][key]:.3f}" for key in keys]
        assert f"{split} {values['num_images']} {' '.join(row)}" in page.text("scores")
    for table in ("protocols", "original"):
        for values in splits["test"][table].values():
            row = [values[key] for key in ("accuracy", "miou", "pet_iou", "mean_dice", "mean_image_miou")]
            assert page.text("protocols").count(" ".join(f"{value:.3f}" for value in row)) == 1
    assert f"train {MINUS} test {signed(1 - splits['test']['protocols']['trimap']['accuracy'])}" in page.text("scores")


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class(run_folder, edit_metrics):
    matrix = [[300, 100, 0], [1, 1998, 1], [0, 0, 0]]
    edit_metrics(lambda m: m["splits"]["test"]["protocols"]["trimap"].update(confusion_matrix=matrix))
    classes = report(run_folder).text("classes")
    assert "pet 75.0% 300 25.0% 100 0.0% 0 background 0.1% 1 99.9% 1,998 0.1% 1 border 0.0% 0" in classes


def test_boundaries_have_their_scores_and_say_how_near_is_near(run_folder):
    classes = report(run_folder).text("classes")
    assert "Boundary F-score pet 0.712 background 0.845 border 0.393 mean 0.650 Outlines" in classes
    assert "Boundary IoU pet 0.437 background 0.615 border 0.271 mean 0.441 IoU of the bands" in classes
    assert "matched within 2 pixels, 0.8% of the diagonal rounded up. Mean over single pictures: 0.631." in classes
    assert "4 pixels wide, 2.0% of the diagonal. Mean over single pictures: 0.429." in classes
    assert "Class Precision Recall pet 0.741 0.685 background 0.883 0.811 border 0.502 0.323" in classes
    assert "is not scored: what is left" not in classes


def test_boundaries_of_a_border_that_is_not_scored_say_so(run_folder, edit_metrics):
    def rename(metrics):
        metrics["headline"] = "binary_border_ignore"
        for split in metrics["splits"].values():
            split["protocols"]["binary_border_ignore"] = split["protocols"]["trimap"]

    edit_metrics(rename)
    assert "run through the border, which is not scored: what is left" in report(run_folder).text("classes")


def test_runs_from_before_boundaries_were_measured_have_a_report(run_folder, edit_metrics):
    edit_metrics(lambda m: m["splits"]["test"].pop("boundary"))
    table = pd.read_csv(run_folder / "per_image.csv")
    table.drop(columns=["boundary_f_score", "boundary_iou"]).to_csv(run_folder / "per_image.csv", index=False)
    page = report(run_folder)
    assert "Boundar" not in page.text("classes")
    assert "IoU per class" in page.text("classes")


def test_an_absent_boundary_is_a_dash(run_folder, edit_metrics):
    def change(metrics):
        boundary = metrics["splits"]["test"]["boundary"]
        for key in ("f_score", "precision", "recall", "iou"):
            boundary[key]["border"] = None
        boundary["mean_f_score"] = boundary["mean_image_f_score"] = None

    edit_metrics(change)
    page = report(run_folder)
    assert f"border {ABSENT} mean {ABSENT} Outlines" in page.text("classes")
    assert f"Mean over single pictures: {ABSENT}." in page.text("classes")
    assert not re.search(r"\b(nan|None)\b", " ".join(page.sections.values()))


def test_confidence_says_what_the_temperature_does_and_what_a_review_takes(run_folder, edit_metrics):
    text = report(run_folder).text("confidence")
    assert "a rank correlation of 0.812." in text
    assert "The temperature, fitted on validation pictures, is 1.28. It takes the expected calibration error" in text
    assert "from 0.056 to 0.012." in text
    assert "of the 2 pictures with a mean IoU under 0.5, so many have to be looked at" in text
    assert "25.0% for 50%, 75.0% for 80%, 75.0% for 95% of them." in text

    def without_bad_ones(metrics):
        review = metrics["splits"]["test"]["calibration"]["review"]
        review |= {"num_bad": 0, "look_at": dict.fromkeys(review["look_at"]), "spearman": None}
        review["curve"]["found"] = [None] * 5

    edit_metrics(without_bad_ones)
    text = report(run_folder).text("confidence")
    assert "No picture has a mean IoU under 0.5" in text
    assert "rank correlation" not in text
    assert "found of those" not in text


def test_runs_from_before_confidence_was_measured_have_a_report(run_folder, edit_metrics):
    edit_metrics(lambda m: m["splits"]["test"].pop("calibration"))
    page = report(run_folder)
    assert page.text("confidence").endswith("was not measured in this run.")
    assert len(page.all("svg")) == 5


def test_page_is_self_contained_balanced_and_described(run_folder):
    page = report(run_folder)
    sources = [value for _, tag in page.tags for key, value in tag.items() if key in ("src", "srcset", "data")]
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert all(link["href"].startswith(("#", "data:")) for link in page.all("a") + page.all("link"))
    assert not re.search(r"url\(|@import|https?:", page.html)
    assert len(page.all("img")) == 9  # two of the grid and the worst one, three pictures each
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert len(re.findall(r"<svg [^>]*><title>[^<]+</title><desc>[^<]+</desc>", page.html)) == 7 == len(page.all("svg"))
    assert page.html.startswith("<!DOCTYPE html>")
    assert len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("meta")[1]["name"] == "viewport"
    assert [section["id"] for section in page.all("section")] == SECTIONS
    assert [link["href"] for link in page.all("a")] == [f"#{section}" for section in SECTIONS]


def test_names_from_files_are_escaped(run_folder):
    evil = "<script>alert(1)</script>&\"'"
    for path in (
        "per_image.csv",
        "metrics.json",
        "environment.json",
        "pictures/pictures.json",
        ".hydra/config.yaml",
    ):
        text = (run_folder / path).read_text()
        quoted = json.dumps(evil)[1:-1] if path.endswith("json") else evil
        for old in ("beagle_2", "0d7e29e", "base_channels", "trimap: pet"):
            text = text.replace(old, '"' + quoted.replace('"', '""') + '"' if path.endswith("csv") else quoted)
        (run_folder / path).write_text(text)
    page = report(run_folder)
    assert page.all("script") == [{}]
    assert page.html.count("<script>") == 1
    for section in ("head", "pictures", "run"):
        assert evil in page.text(section)


@pytest.mark.parametrize("absent", ["null", "NaN"])
def test_absent_class_is_a_dash_and_never_the_hardest(run_folder, absent):
    path = run_folder / "metrics.json"
    metrics = json.loads(path.read_text())
    for split in metrics["splits"].values():
        for key in ("iou", "dice", "precision", "recall"):
            split["protocols"]["trimap"][key]["border"] = "absent"
    path.write_text(json.dumps(metrics).replace('"absent"', absent))
    page = report(run_folder)
    assert f"border {ABSENT}" in page.text("classes")
    assert sum(tag.get("title") == "class absent" for _, tag in page.tags) >= 6
    assert "hardest class is border" not in page.text("head")
    assert not any("nan" in (tag.get("style") or "") for _, tag in page.tags)
    assert not re.search(r"\b(nan|None)\b", " ".join(page.sections.values()))


def test_evaluated_split_alone_makes_a_report(run_folder, edit_metrics):
    def evaluated(metrics):
        for key in ("best_epoch", "epochs", "parameters", "train_seconds", "images_per_second", "num_images"):
            del metrics[key]
        metrics["door"], metrics["splits"] = "evaluate", {"val": metrics["splits"]["val"]}
        del metrics["splits"]["val"]["original"]

    edit_metrics(evaluated)
    shutil.rmtree(run_folder / "csv")
    page = report(run_folder)
    assert "On 1 val pictures" in page.text("head")
    assert "Binary, the border is background" in page.text("protocols")
    assert "nothing was trained in this run" in page.text("learning")
    assert f"Over-fitting gap {ABSENT} paper 0.05" in page.text("scores")
    assert "original resolution are measured by petseg evaluate" in page.text("protocols")


def test_single_picture_makes_a_report(run_folder):
    table = (run_folder / "per_image.csv").read_text().splitlines()
    (run_folder / "per_image.csv").write_text("\n".join(table[:2]))
    assert "medians of 1 groups" in report(run_folder).text("images")


def test_metrics_alone_make_a_report(run_folder):
    for path in run_folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "metrics.json":
            path.unlink()
    page = report(run_folder)
    assert "saved no pictures" in page.text("pictures")
    assert "no table of single pictures" in page.text("images")
    assert "are not known" in page.text("breeds")
    assert "No cause of failure was measured" in page.text("failures")
    assert "environment was not recorded" in page.text("run")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("oxford_pet", "trained on 1,157, chose its epoch on 129 and tested on 4, a subset"),
        ("synthetic", "scores say nothing about the paper"),
    ],
)
def test_what_is_comparable_depends_on_the_data(run_folder, source, sentence):
    path = run_folder / "environment.json"
    path.write_text(path.read_text().replace("oxford_pet", source))
    scores = report(run_folder).text("scores")
    assert scores.startswith("Beside the paper")
    assert sentence in scores
    assert ("paper 0.627 +" in scores or f"paper 0.627 {MINUS}" in scores) == (source == "oxford_pet")


def test_the_report_of_other_pictures_leaves_the_paper_out_of_their_scores(run_folder):
    path = run_folder / "environment.json"
    path.write_text(path.read_text().replace("oxford_pet", "folder"))
    scores = report(run_folder).text("scores")
    assert scores.startswith("Scores Accuracy ")
    assert "paper" not in scores


def test_breeds_and_species_are_sorted_and_counted(run_folder):
    table = (run_folder / "per_image.csv").read_text().splitlines()
    miou = {row.split(",")[0]: float(row.split(",")[6]) for row in table[1:]}
    beagle = (miou["beagle_2"] + miou["beagle_3"]) / 2
    cat = (miou["Abyssinian_1"] + miou["Bombay_4"]) / 2
    bars = {
        f"Abyssinian 1 {miou['Abyssinian_1']:.3f}": miou["Abyssinian_1"],
        f"beagle 2 {beagle:.3f}": beagle,
    }
    bars[f"Bombay 1 {miou['Bombay_4']:.3f}"] = miou["Bombay_4"]
    text = report(run_folder).text("breeds")
    assert " ".join(sorted(bars, key=bars.__getitem__, reverse=True)) in text
    assert f"cat 2 {cat:.3f} dog 2 {beagle:.3f}" in text


def test_worst_picture_carries_its_causes(run_folder):
    text = report(run_folder).text("failures")
    assert "beagle_3 IoU" in text
    assert "class imbalance 89% The causes over all 4 pictures" in text  # a disc of 9 in 48 x 48 pixels


def test_causes_are_counted_and_compared(run_folder):
    table = pd.read_csv(run_folder / "per_image.csv")
    table["pet_fraction"], table["miou"] = [0.7, 0.3, 0.3, 0.3], [0.2, 0.5, 0.6, 0.7]
    table.to_csv(run_folder / "per_image.csv", index=False)
    assert "at least 60% of the picture. 1 0.200 0.600" in report(run_folder).text("failures")


def test_same_files_make_the_same_page(run_folder):
    assert write_report(run_folder).read_bytes() == write_report(run_folder).read_bytes()


def test_failed_report_leaves_the_old_one_and_nothing_else(run_folder):
    before = write_report(run_folder).read_bytes()
    files = sorted(run_folder.iterdir())
    next((run_folder / "pictures").glob("*.jpg")).write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        write_report(run_folder)
    assert (run_folder / "report.html").read_bytes() == before
    assert sorted(run_folder.iterdir()) == files


def test_numbers():
    assert [number(0.12349), number(-0.021), number(None), number(float("nan"))] == [
        "0.123",
        f"{MINUS}0.021",
        ABSENT,
        ABSENT,
    ]
    assert [percent(0.8461), percent(None)] == ["84.6%", ABSENT]
    assert [signed(0.0214), signed(-0.0516)] == ["+0.021", f"{MINUS}0.052"]


def test_flatten_names_leaves_by_their_path():
    tree = {"git": {"commit": "a", "state": {"dirty": False}}, "command": ["petseg", "train"]}
    assert flatten(tree) == [
        ("git.commit", "a"),
        ("git.state.dirty", False),
        ("command", ["petseg", "train"]),
    ]


def test_embedded_pictures_are_small(tmp_path):
    Image.new("RGBA", (1024, 512), "red").save(tmp_path / "large.png")
    kind, content = embed(tmp_path / "large.png").split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (256, 128)


def test_report_imports_no_torch():
    code = "import sys, petseg_lightning.report; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_door_remakes_the_report(run_folder):
    command = [sys.executable, "-m", "petseg_lightning.report", f"run={run_folder.name}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=run_folder.parent)
    assert done.stdout == f"report  {run_folder / 'report.html'}\n"
    assert "Pet segmentation" in (run_folder / "report.html").read_text(encoding="utf-8")


def test_a_training_that_did_not_end_has_no_report_yet(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    with pytest.raises(
        InputError, match=rf"its training did not end: petseg train resume={tmp_path} goes on, or give the"
    ):
        write_report(tmp_path)


def test_folder_without_metrics_is_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"is no run folder: metrics\.json is missing; give the folder of"):
        write_report(tmp_path)
