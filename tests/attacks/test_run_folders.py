"""Run folders from somebody else: nothing resolves, no file is followed out of them, each damage is one line."""

import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch

from petseg_lightning.segmenter import CHECKPOINT_KEY

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def replace(path: Path, content: str | bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def link(path: Path, place: str | Path) -> None:
    path.unlink()
    path.symlink_to(place)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def scores(metrics: dict) -> dict:
    return metrics["splits"]["test"]["protocols"][metrics["headline"]]


def png(width: int, height: int) -> bytes:
    """A small file of a large picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


METRICS = {
    "half": lambda path: replace(path, path.read_text()[:300]),
    "nothing": lambda path: replace(path, ""),
    "a list": lambda path: replace(path, "[]"),
    "a number": lambda path: replace(path, "3"),
    "no text": lambda path: replace(path, b"\xff\xfe\x00"),
    "depth": lambda path: replace(path, "[" * 10**5 + "]" * 10**5),
    "a pipe": pipe,
    "the environment": lambda path: link(path, "/proc/self/environ"),
    "a list for splits": lambda path: edit(path, lambda all_: all_.update(splits=[1])),
    "no splits": lambda path: edit(path, lambda all_: all_.update(splits={})),
    "text for a score": lambda path: edit(path, lambda all_: scores(all_).update(miou="high")),
    "a dict for a score": lambda path: edit(path, lambda all_: scores(all_).update(accuracy={})),
    "a huge score": lambda path: edit(path, lambda all_: scores(all_).update(miou=10**400)),
    "another headline": lambda path: edit(path, lambda all_: all_.update(headline="other")),
    "a headline of none": lambda path: edit(path, lambda all_: all_.update(headline=None)),
    "another class": lambda path: edit(path, lambda all_: scores(all_).update(iou={"x": 1})),
    "text for a class": lambda path: edit(path, lambda all_: scores(all_)["iou"].update(pet="x")),
    "text for classes": lambda path: edit(path, lambda all_: all_.update(class_names="pet")),
    "text for a table": lambda path: edit(path, lambda all_: scores(all_).update(confusion_matrix="x")),
    "a table of another size": lambda path: edit(path, lambda all_: scores(all_).update(confusion_matrix=[[1]])),
    "a colour from elsewhere": lambda path: edit(
        path, lambda all_: all_["colors"].update(pet="red;background:url(http://127.0.0.1:9/x)")
    ),
    "an epoch in words": lambda path: edit(path, lambda all_: all_.update(best_epoch="x")),
    "half a calibration": lambda path: edit(path, lambda all_: all_["splits"]["test"].update(calibration={})),
    "a calibration of words": lambda path: edit(
        path, lambda all_: all_["splits"]["test"]["calibration"]["review"].update(look_at={"most": 0.1})
    ),
    "half a boundary": lambda path: edit(path, lambda all_: all_["splits"]["test"].update(boundary={"iou": {}})),
}
TABLES = {
    "nothing of a table": lambda path: replace(path, "\x00\x01"),
    "no columns that are needed": lambda path: replace(path, "a,b\n1,2\n"),
    "text for a score": lambda path: replace(path, "name,miou,accuracy\na,high,0.5\n"),
    "a huge score": lambda path: replace(path, "name,miou,accuracy\na,1e300,0.5\n"),
    "ragged rows": lambda path: replace(path, "name,miou,accuracy\na,0.1,0.5\na,0.1,0.5,0.7,0.9\n"),
    "an open quote": lambda path: replace(path, 'name,miou,accuracy\n"a,0.1,0.5\n'),
    "many columns": lambda path: replace(path, "name,miou,accuracy" + ",a" * 10**6 + "\n"),
    "many rows": lambda path: replace(path, "name,miou,accuracy\n" + "a,0.1,0.1\n" * 300_000),
    "a pipe": pipe,
    "the environment": lambda path: link(path, "/proc/self/environ"),
}
PICTURES = {
    "half": lambda path: replace(path, path.read_text()[:50]),
    "a dict": lambda path: replace(path, "{}"),
    "a list of numbers": lambda path: replace(path, "[1, 2]"),
    "a place outside": lambda path: edit(path, lambda all_: all_[0].update(image="../../../secret.png")),
    "an absolute place": lambda path: edit(path, lambda all_: all_[0].update(image="/etc/passwd")),
    "a number for a file": lambda path: edit(path, lambda all_: all_[0].update(truth=3)),
    "no name": lambda path: edit(path, lambda all_: all_[0].pop("name") and None),
    "a score of text": lambda path: edit(path, lambda all_: all_[0].update(miou="x")),
    "a picture that is a link": lambda path: link(next(path.parent.glob("*_image.jpg")), "/etc/passwd"),
    "a picture that is a pipe": lambda path: pipe(next(path.parent.glob("*_image.jpg"))),
    "a picture that is a program": lambda path: replace(next(path.parent.glob("*_image.jpg")), "%!PS\n{ } loop\n"),
    "a picture of 13,000 pixels": lambda path: replace(next(path.parent.glob("*_image.jpg")), png(13_000, 13_000)),
    "a picture that is not there": lambda path: next(path.parent.glob("*_image.jpg")).unlink(),
    "the environment": lambda path: link(path, "/proc/self/environ"),
}
OTHERS = {
    "an environment of a list": lambda run: replace(run / "environment.json", "[]"),
    "data of a list": lambda run: replace(run / "environment.json", '{"data": []}'),
    "counts of words": lambda run: replace(run / "environment.json", '{"data": {"counts": {"train": "x"}}}'),
    "a deep environment": lambda run: replace(run / "environment.json", '{"a":' * 900 + "1" + "}" * 900),
    "a link for an environment": lambda run: link(run / "environment.json", "/proc/self/environ"),
    "a config that is a link": lambda run: link(run / ".hydra/config.yaml", "/proc/self/environ"),
    "overrides that are a pipe": lambda run: pipe(run / ".hydra/overrides.yaml"),
    "curves of words": lambda run: replace(run / "csv/metrics.csv", "epoch,val/miou\nx,0.1\n"),
    "curves of huge epochs": lambda run: replace(run / "csv/metrics.csv", "epoch,val/miou\n1e300,0.1\n"),
    "curves that are a link": lambda run: link(run / "csv/metrics.csv", "/proc/self/environ"),
}
YAMLS = {
    "laughs": LAUGHS,
    "depth": "[" * 10_000 + "]" * 10_000,
    "a program": "a: !!python/object/apply:os.system ['touch executed']\n",
    "an object": "a: !!python/name:os.system\n",
    "half": "a: [1, 2",
    "a list": "- 1\n",
    "a number": "3",
    "another code": b"\xff\xfe",
    "a tab": "a:\n\t- 1",
    "a seed of words": "seed: many\n",
    "a large file": "a: 1\n" * 300_000,
    "many values": "a: [" + "1, " * 200_000 + "1]\n",
}


@pytest.mark.parametrize("name", METRICS)
def test_damaged_scores_are_one_line(refused, run, name):
    METRICS[name](run / "metrics.json")
    for door, key in (("report", "run"), ("compare", "runs")):
        assert "metrics.json" in refused(door, f"{key}={run}")


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_one_line(refused, run, name):
    TABLES[name](run / "per_image.csv")
    for door, key in (("report", "run"), ("compare", "runs")):
        refused(door, f"{key}={run}")


@pytest.mark.parametrize("name", PICTURES)
def test_a_page_embeds_pictures_of_its_folder_only(refused, run, name):
    (run / "report.html").unlink()
    shutil.copy(next((run / "pictures").glob("*_image.jpg")), run.parent / "secret.png")
    PICTURES[name](run / "pictures" / "pictures.json")
    refused("report", f"run={run}")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", OTHERS)
def test_other_damaged_files_are_one_line(refused, run, name):
    OTHERS[name](run)
    refused("report", f"run={run}")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param(file, name, marks=[] if file == "config" or name == "laughs" else pytest.mark.slow)
        for file in ("config", "overrides", "hydra")
        for name in YAMLS
        if not (file == "overrides" and name in ("a list", "a seed of words"))
    ],
)
def test_yaml_of_something_else_is_one_line(refused, run, file, name):
    replace(run / ".hydra" / f"{file}.yaml", YAMLS[name])
    refused("compare", f"runs={run}")


def test_no_secret_is_resolved(command, run):
    config = run / ".hydra" / "config.yaml"
    config.write_text(
        config.read_text() + "secret: ${oc.env:PETSEG_SECRET}\nother: ${oc.decode:${oc.env:PETSEG_SECRET}}\n"
    )
    overrides = run / ".hydra" / "overrides.yaml"
    overrides.write_text("- secret=${oc.env:PETSEG_SECRET}\n- ${oc.env:PETSEG_SECRET}\n")
    hydra = run / ".hydra" / "hydra.yaml"
    hydra.write_text(hydra.read_text() + "  secret: ${oc.env:PETSEG_SECRET}\n")
    for door, setting in (("report", f"run={run}"), ("compare", f"runs={run}"), ("export", f"ckpt={run}")):
        code, errors = command(door, setting)
        assert code == 0, errors
    assert "${oc.env:PETSEG_SECRET}" in Path("exports/model/README.md").read_text()


def test_references_to_other_keys_multiply_nothing(command, run):
    config = run / ".hydra" / "config.yaml"
    chain = "".join(f"k{i}: {f'${{k{i + 1}}}' * 30}\n" for i in range(30))
    config.write_text(config.read_text() + chain + "itself: ${itself}\n")
    code, errors = command("compare", f"runs={run}")
    assert code == 0, errors


MARKUP = "<script>alert(1)</script>"


def test_every_text_on_a_page_is_escaped(command, run):
    text = (run / "metrics.json").read_text()
    for name in ("pet", "background", "border"):
        text = re.sub(rf'"{name}"', json.dumps(f"{name}<script>alert(1)</script>"), text)
    metrics = json.loads(text) | {"target_label": MARKUP, "door": MARKUP, "target": MARKUP}
    for split in metrics["splits"].values():
        split["protocols"] = {k if k == metrics["headline"] else MARKUP: v for k, v in split["protocols"].items()}
        for values in split["protocols"].values():
            values["label"] = MARKUP
    (run / "metrics.json").write_text(json.dumps(metrics))
    table = (run / "per_image.csv").read_text().splitlines()
    table[1:] = [",".join([MARKUP, MARKUP, MARKUP, *line.split(",")[3:]]) for line in table[1:]]
    (run / "per_image.csv").write_text("\n".join(table))
    edit(run / "pictures" / "pictures.json", lambda all_: [one.update(name=MARKUP) for one in all_] and None)
    edit(run / "environment.json", lambda all_: all_.update({MARKUP: MARKUP, "started": MARKUP}))
    edit(run / "environment.json", lambda all_: all_["data"].update(source=MARKUP))
    for name in ("config", "overrides"):
        path = run / ".hydra" / f"{name}.yaml"
        path.write_text(path.read_text() + {"config": f"x: {MARKUP}\n", "overrides": f"- x={MARKUP}\n"}[name])
    code, errors = command("report", f"run={run}")
    assert code == 0, errors
    code, errors = command("compare", f"runs={run}", "hydra.run.dir=out")
    assert code == 0, errors
    for page in (run / "report.html", Path("out/index.html")):
        found = page.read_text()
        assert "alert(1)" in found
        assert "<script>alert" not in found
        assert not re.search(r'(href|src)="(?!data:image/webp|data:,|#)', found)


def test_names_are_no_markup_of_the_terminal(command, run, whole):
    path = run / "checkpoints" / "best.ckpt"
    contents = torch.load(path, weights_only=True)
    contents[CHECKPOINT_KEY]["target"]["label"] = "[/][link=http://127.0.0.1:9]x[/link]"
    torch.save(contents, path)
    code, errors = command("evaluate", f"ckpt={path}", "trainer=cpu", "~callbacks.progress_bar")
    assert code == 0, errors


def test_claims_of_a_run_without_scores_are_one_line(refused, run):
    edit(run / "metrics.json", lambda all_: all_["splits"]["train"].update(protocols={}))
    assert "claims do not hold" in refused("compare", "claims=paper", f"run={run}")


def test_a_page_of_another_checkpoint_shows_no_pictures(command, run, whole):
    """Two settings, of which one is somebody's who says that the data are elsewhere."""
    other = Path(shutil.copytree(run, run.parent / "other"))
    config = other / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("base_channels: 2", "base_channels: 3"))
    table = (other / "per_image.csv").read_text().splitlines()
    columns = table[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in table[1:]]
    for row in rows:
        row["miou"] = "0.5"
    lines = [table[0], *(",".join(row.values()) for row in rows)]
    (other / "per_image.csv").write_text("\n".join(lines))
    for folder in (run, other):
        path = folder / "checkpoints" / "best.ckpt"
        contents = torch.load(path, weights_only=True)
        contents[CHECKPOINT_KEY]["data"] = {"_target_": "os.system", "command": "touch executed"}
        torch.save(contents, path)
    code, errors = command("compare", f"runs={run.parent}", "hydra.run.dir=out")
    assert code == 0, errors
    page = Path("out/index.html").read_text()
    assert "The pictures are named only, not shown" in page
    assert "<img" not in page
