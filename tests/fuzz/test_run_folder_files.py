"""Files of a run folder that are nearly right: an InputError of one line, or a report and a run to compare."""

import json
import random
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from nearly import as_json, corpus, mutated, mutated_bytes, require_line

from petseg_lightning.comparing.folders import unusable
from petseg_lightning.comparing.runs import group, read_runs, require_comparable
from petseg_lightning.comparing.tables import leaderboard
from petseg_lightning.effect import effective_values
from petseg_lightning.errors import InputError
from petseg_lightning.plain_files import parse_yaml, require_plain
from petseg_lightning.report.page import write_report
from petseg_lightning.report.run_folder import RunFolder

CLASSES = ["pet", "background"]
SCORES = {
    "label": "pet / background",
    "class_names": CLASSES,
    **{"accuracy": 0.9, "miou": 0.8, "mean_dice": 0.85, "pet_iou": 0.7, "mean_image_accuracy": 0.9},
    **{"mean_image_miou": 0.8, "lowest_image_miou": 0.1},
    **{key: {"pet": 0.7, "background": None} for key in ("iou", "dice", "precision", "recall")},
    "confusion_matrix": [[30, 4], [5, 60]],
}
BINS = {"pixels": [0, 3], "probability": [None, 0.9], "accuracy": [None, 0.8]}
BOUNDARY = {
    **{"tolerance": 0.008, "tolerance_pixels": 1, "band": 0.02, "band_pixels": 2},
    **{key: {"pet": 0.4, "background": None} for key in ("f_score", "precision", "recall", "iou")},
    **{"mean_f_score": 0.4, "mean_iou": 0.3, "mean_image_f_score": 0.4, "mean_image_iou": None},
}
CALIBRATION = {
    "temperature": 1.2,
    **{key: {"expected_calibration_error": 0.02, "bins": BINS} for key in ("before", "after")},
    "review": {
        **{"bad_miou": 0.5, "num_bad": 1, "look_at": {"0.5": 0.2, "0.8": None}, "spearman": 0.3},
        "curve": {"looked_at": [0.0, 1.0], "found": [0.0, 1.0], "rest_miou": [0.8, None]},
    },
}
SPLIT = {"num_images": 2, "protocols": {"own": SCORES}}
METRICS = {
    **{
        "door": "train",
        "epochs": 2,
        "best_epoch": 1,
        "parameters": 900,
        "train_seconds": 3.5,
        "images_per_second": None,
    },
    **{"class_names": CLASSES, "colors": {"pet": "#e69f00", "background": "#5f6b76"}, "target": "own"},
    **{"target_label": "pet / background", "image_size": 16, "headline": "own", "reported_split": "test"},
    "splits": {
        "test": {**SPLIT, "original": {"own": SCORES}, "boundary": BOUNDARY, "calibration": CALIBRATION},
        "train": SPLIT,
    },
}
TABLE = (
    "name,breed,species,miou,accuracy,iou_pet,fraction_pet,pixels,intersection_pet,union_pet,intersection_background,"
    "union_background,edge_contrast,pet_fraction\n"
    "tom,Bombay,cat,0.8,0.9,0.7,0.4,256,20,30,100,110,0.3,0.4\nrex,beagle,dog,0.1,0.5,,0.1,256,1,90,10,200,0.5,0.1\n"
)
CURVES = "epoch,step,train/loss,val/miou\n0,1,0.9,\n0,1,,0.3\n1,3,0.5,\n1,3,,0.5\n"
ENVIRONMENT = {
    **{"versions": {"python": "3.11"}, "git": {"commit": "0d7e", "dirty": False}, "hardware": {"cores": 2, "gpus": []}},
    **{"data": {"source": "FolderDataModule", "counts": {"train": 6, "val": 2, "test": 2}, "fingerprint": "0a"}},
    **{"command": ["petseg", "train"], "started": "2026-10-03T09:12:44", "finished": "2026-10-03T09:13:00"},
}
CONFIG = {
    **{"seed": 0, "paths": {"data_dir": "data", "output_dir": "${hydra:runtime.output_dir}"}},
    **{"data": {"root": "${paths.data_dir}/x", "num_folds": None, "fold": 0}, "model": {"base_channels": 4}},
    **{"compute": {"precision": "auto"}, "trainer": {"precision": "${compute.precision}", "max_epochs": 2}},
}
HYDRA = {"hydra": {"job": {"name": "train"}}}
FILES = {
    "metrics.json": as_json(METRICS),
    "per_image.csv": TABLE.encode(),
    "csv/metrics.csv": CURVES.encode(),
    "environment.json": as_json(ENVIRONMENT),
    "pictures/pictures.json": b"[]",
    ".hydra/config.yaml": yaml.safe_dump(CONFIG).encode(),
    ".hydra/overrides.yaml": b"- seed=0\n- model.base_channels=4\n",
    ".hydra/hydra.yaml": yaml.safe_dump(HYDRA).encode(),
}
VALUES = {"metrics.json": METRICS, "environment.json": ENVIRONMENT, ".hydra/config.yaml": CONFIG}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run"


def require_handled(folder: Path, name: str, content: bytes, page: bool = True) -> None:
    """A report and a comparison of the folder with another content of a file, or a line that says what is wrong."""
    (folder / name).write_bytes(content)
    before = {path: path.stat().st_size for path in folder.rglob("*") if path.name != "report.html"}
    try:
        with warnings.catch_warnings(action="error"):
            _use(folder, page)
    except InputError as error:
        require_line(error)
    assert {path: path.stat().st_size for path in folder.rglob("*") if path.name != "report.html"} == before
    (folder / name).write_bytes(FILES[name])


def _use(folder: Path, page: bool) -> None:
    failures = []
    for use in (lambda: write_report(folder) if page else RunFolder.read(folder), lambda: _compare(folder)):
        try:
            use()
        except InputError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _compare(folder: Path) -> None:
    if unusable(folder) is None:
        runs, _ = read_runs([folder])
        require_comparable(runs)
        leaderboard(group(runs), 0.95)


@pytest.mark.parametrize("path", corpus("run_folder_files"), ids=lambda path: path.name)
def test_what_was_found(folder, path):
    name = next(name for name in FILES if path.name.startswith(name.replace("/", "~")))
    require_handled(folder, name, path.read_bytes())


def run(folder: Path, number: int, seed: int, page: bool) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        name = rng.choice([*FILES])
        if name in VALUES and rng.random() < 0.7:
            value = mutated(VALUES[name], rng)
            try:
                content = as_json(value) if name.endswith("json") else yaml.safe_dump(value).encode()
            except (yaml.YAMLError, UnicodeEncodeError):
                continue
        else:
            content = mutated_bytes(FILES[name], rng)
        try:
            require_handled(folder, name, content, page)
        except Exception:
            (folder.parent / "found").write_bytes(content)
            print(f"{name}: {content!r}")
            raise


def test_a_few(folder):
    write_report(folder)
    _compare(folder)
    run(folder, 60, seed=0, page=True)


REFERENCES = st.lists(st.sampled_from(["${a}", "${b}", "${.c}", "${..d}", "x"]), max_size=6)
YAML_TEXT = st.lists(st.sampled_from([*"abc:-[]{}&*!|>%@`'\"#, \n\t", "${a}", "<<", "!!str", "1e9", "? "]), max_size=40)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(YAML_TEXT)
def test_any_yaml(pieces):
    try:
        value = parse_yaml("".join(pieces), "config.yaml")
    except InputError as error:
        require_line(error)
        return
    require_plain(value)
    if isinstance(value, dict):
        json.dumps(effective_values(value))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.sampled_from(["${a}", "${b}", "${.c}", "${..d}", "x"]), max_size=6)
    )
)
def test_references_end(config):
    values = effective_values({key: "".join(value) for key, value in config.items()})
    assert all(len(value) < 10**5 for value in values.values())


@pytest.mark.slow
def test_many(folder):
    run(folder, 3_000, seed=1, page=False)


@pytest.mark.slow
def test_many_pages(folder):
    run(folder, 1_000, seed=2, page=True)
