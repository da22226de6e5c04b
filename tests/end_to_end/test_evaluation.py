"""Scoring a checkpoint under every protocol, on other data, on several devices."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.exporting.run import export
from petseg_lightning.inference.checkpoint import load_module, read_checkpoint
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.metrics.boundary import boundary_counts
from petseg_lightning.scoring import score_checkpoint
from petseg_lightning.segmenter import CHECKPOINT_KEY

BINARY = {"binary_border_pet", "binary_border_background", "binary_border_ignore"}
SPECIES = {"species_border_pet", "species_border_background", "species_border_ignore"}


def score(folder: Path, *overrides: str) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    overrides = ("~callbacks.progress_bar", "trainer=cpu", *overrides)
    return score_checkpoint(compose("evaluate", overrides, output_dir=folder))


@pytest.mark.parametrize(
    ("target", "protocols"), [("trimap", {"trimap"} | BINARY), ("species", SPECIES | BINARY), ("binary", BINARY)]
)
def test_every_protocol_of_the_classes_at_both_resolutions(trained_run, tmp_path, target, protocols):
    run = trained_run(target)
    metrics = score(tmp_path, f"ckpt={run}")
    test = metrics["splits"]["test"]
    assert test["protocols"].keys() == test["original"].keys() == protocols
    trained = json.loads((run / "metrics.json").read_text())
    assert {key: value for key, value in test.items() if key != "original"} == trained["splits"]["test"]
    data = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]
    trimaps = Path(data["root"], "oxford-iiit-pet/annotations/trimaps")
    names = [line.split()[0] for line in Path(trimaps.parent, "test.txt").read_text().splitlines() if line[0] != "#"]
    masks = [np.asarray(Image.open(trimaps / f"{name}.png")) for name in names]
    border = sum((mask == 3).sum() for mask in masks)
    for name, scores in test["original"].items():
        ignored = border if name.endswith("ignore") else 0
        assert np.sum(scores["confusion_matrix"]) == sum(mask.size for mask in masks) - ignored


def test_a_bundle_scores_as_its_checkpoint_does(trained_run, tmp_path):
    run = trained_run()
    root = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]["root"]
    bundle = export(compose("export", [f"ckpt={run}", f"out={tmp_path}/bundle"], output_dir=tmp_path))
    scores = [score(tmp_path / f"{i}", f"ckpt={path}", f"data.root={root}") for i, path in enumerate((run, bundle))]
    assert scores[0]["splits"] == scores[1]["splits"]


def test_every_checkpoint_of_a_training_has_the_temperature_of_its_own_weights(trained_run):
    """The one with the lowest cross-entropy on the validation split, over an even grid of its pixels."""
    run = trained_run()
    description = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]
    module, data = load_module(run), {**description["data"], "cache": "none"}
    from petseg_lightning.config import build

    logits, masks = [], []
    for batch in build(data, transforms=[], seed=0).evaluation_dataloader("val"):
        with torch.inference_mode():
            logits.append(module(batch["image"])[..., 2::4, 2::4])
        masks.append(module.class_of_part[batch["parts"].long()][..., 2::4, 2::4])
    everything = torch.cat(logits), torch.cat(masks)

    def cross_entropy(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(everything[0] / temperature, everything[1], ignore_index=255))

    fitted = description["temperature"]
    assert fitted != 1
    assert cross_entropy(fitted) < min(cross_entropy(fitted * 1.1), cross_entropy(fitted / 1.1))
    calibration = json.loads((run / "metrics.json").read_text())["splits"]["test"]["calibration"]
    assert calibration["temperature"] == fitted


def test_protocols_recounted_pixel_by_pixel(trained_run, tmp_path):
    """Merge the classes in the pictures themselves, and count again."""
    run = trained_run("species")
    metrics = score(tmp_path, f"ckpt={run}", "split=val")
    module = load_module(run)
    cfg = compose("train", ["data=synthetic"])
    from petseg_lightning.config import build

    stored = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]
    datamodule = build({**stored, "_target_": cfg.data._target_})
    matrix = np.zeros((2, 2), int)
    for index in range(len(datamodule.splits["val"])):
        image, parts = datamodule.pictures("val")[index]
        with torch.no_grad():
            prediction = module(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).argmax(1)[0].numpy()
        kept = (parts != 2) & (parts != 4)  # not the borders
        np.add.at(matrix, ((parts[kept] > 0).astype(int), (prediction[kept] > 0).astype(int)), 1)
    scores = metrics["splits"]["val"]["protocols"]["binary_border_ignore"]
    assert scores["confusion_matrix"] == matrix.tolist()
    assert scores["pet_iou"] == pytest.approx(matrix[1, 1] / (matrix.sum() - matrix[0, 0]))
    assert scores["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())


@pytest.mark.parametrize("reading", ["species", "binary"])
def test_boundaries_are_those_of_all_pictures_and_of_each(trained_run, tmp_path, reading):
    """Predict the pictures again, sum the counts of their boundaries and divide, in plain Python."""
    run = trained_run(reading)
    metrics = score(tmp_path, f"ckpt={run}")["splits"]["test"]["boundary"]
    module = load_module(run)
    names, class_of_part = module.target.class_names, np.array(module.target.part_to_class)
    cfg = compose("train", ["data=synthetic"])
    from petseg_lightning.config import build

    stored = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]
    datamodule = build({**stored, "_target_": cfg.data._target_})
    counts = []
    for index in range(len(datamodule.splits["test"])):
        image, parts = datamodule.pictures("test")[index]
        with torch.no_grad():
            prediction = module(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).argmax(1)[0].numpy()
        counts.append(boundary_counts(class_of_part[parts], prediction, len(names)).tolist())

    def ratios(row):
        true, matched_true, predicted, matched_predicted, both, either = row
        f_score = None
        if true + predicted:
            precision, recall = matched_predicted / (predicted or 1), matched_true / (true or 1)
            f_score = 2 * precision * recall / (precision + recall or 1)
        return f_score, both / either if either else None

    def mean(values):
        kept = [value for value in values if value is not None]
        return sum(kept) / len(kept) if kept else math.nan

    whole = [ratios(map(sum, zip(*rows, strict=True))) for rows in zip(*counts, strict=True)]
    single = [[mean(column) for column in zip(*map(ratios, rows), strict=True)] for rows in counts]
    table = pd.read_csv(tmp_path / "per_image.csv")
    for i, key in enumerate(("f_score", "iou")):
        assert metrics[key] == pytest.approx({name: row[i] for name, row in zip(names, whole, strict=True)})
        assert metrics[f"mean_{key}"] == pytest.approx(mean(row[i] for row in whole))
        assert table[f"boundary_{key}"].tolist() == pytest.approx([row[i] for row in single], rel=1e-5, nan_ok=True)
        assert metrics[f"mean_image_{key}"] == pytest.approx(np.nanmean([row[i] for row in single]))
    assert (metrics["tolerance_pixels"], metrics["band_pixels"]) == (1, 1)


def test_two_devices_count_every_image_once_to_the_pixel(trained_run, tmp_path):
    run = trained_run()
    one = score(tmp_path / "one", f"ckpt={run}")
    command = [sys.executable, "-m", "petseg_lightning.evaluate", f"ckpt={run}", "trainer=ddp_cpu", "trainer.devices=2"]
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'two'}"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == f"run folder  {tmp_path / 'two'}"
    two = json.loads((tmp_path / "two/metrics.json").read_text())
    assert two["splits"] == one["splits"]
    for table in ("per_image.csv", "confusion_matrix.csv"):
        assert (tmp_path / "two" / table).read_text() == (tmp_path / "one" / table).read_text()


def test_other_data_of_the_same_kind(trained_run, tmp_path):
    metrics = score(
        tmp_path / "run", f"ckpt={trained_run()}", "data=synthetic", f"data.root={tmp_path / 'other'}",
        "data.num_trainval=30", "data.num_test=5", "data.picture_size=64", "data.synthetic_seed=3",
    )  # fmt: skip
    assert metrics["splits"]["test"]["num_images"] == 5
    assert metrics["image_size"] == 32


def test_a_moved_run_and_moved_data(trained_run, tmp_path):
    """The checkpoint alone is enough, and data.root says where the data went."""
    run = trained_run()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    stored = read_checkpoint(copy)[CHECKPOINT_KEY]["data"]["root"]
    (tmp_path / "moved").symlink_to(stored)
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    metrics = score(tmp_path / "run", f"ckpt={copy}", f"data.root={tmp_path / 'moved'}", cache)
    assert any((tmp_path / "cache").iterdir())
    trained = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    assert metrics["splits"]["test"]["protocols"] == trained["protocols"]


def test_checkpoints_hold_plain_values_only(trained_run):
    for name in ("best", "last"):
        checkpoint = torch.load(trained_run() / f"checkpoints/{name}.ckpt", weights_only=True)
        assert {"model", "target", "preprocessing", "data", "version"} <= checkpoint[CHECKPOINT_KEY].keys()
        assert set(checkpoint["state_dict"]) == {
            f"network.{key}" for key in load_module(trained_run()).network.state_dict()
        }


def test_a_checkpoint_cannot_name_code_to_run(trained_run, tmp_path):
    checkpoint = torch.load(trained_run() / "checkpoints/best.ckpt", weights_only=True)
    checkpoint[CHECKPOINT_KEY]["model"] = {"_target_": "subprocess.Popen", "args": "true"}
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=r"asks for subprocess\.Popen; only models of petseg_lightning\.models"):
        load_module(tmp_path / "evil.ckpt")


def test_a_training_that_has_ended_is_not_gone_on_with(trained_run, train_small, tmp_path):
    with pytest.raises(InputError, match=r"trained for 2 epochs or more; to go on, set trainer\.max_epochs to more"):
        train_small(tmp_path, f"ckpt_path={trained_run()}", "compute=exact")


def test_a_model_of_pets_is_not_scored_on_masks_of_another_kind(trained_run, tmp_path):
    for name in ("a", "b", "c", "d", "e", "f"):
        for folder in ("images", "masks"):
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            classes = Image.linear_gradient("L").point(lambda value: value // 128)
            classes.convert("RGB" if folder == "images" else "L").save(tmp_path / "own" / folder / f"{name}.png")
    with pytest.raises(InputError, match="use the checkpoint with data of its own kind"):
        score(
            tmp_path / "run", f"ckpt={trained_run('binary')}", "data=folder", f"data.root={tmp_path / 'own'}",
            "data.class_names=[background,pet]", "data.val_fraction=0.3", "data.test_fraction=0.3",
        )  # fmt: skip


def test_a_predictor_is_scored_on_the_pictures_themselves(trained_run, tmp_path):
    """As the network is, where it looks once; and as a loop over the pictures counts, where it looks twice."""
    run = trained_run()
    plain = score(tmp_path / "plain", f"ckpt={run}")["splits"]["test"]
    ensemble = score(tmp_path / "twice", f"ckpt=[{run},{run}]")["splits"]["test"]
    assert ensemble["protocols"] == plain["protocols"]
    assert ensemble["original"] == plain["original"]
    flipped = score(tmp_path / "flip", f"ckpt={run}", "tta=flip", "tiling=24")
    assert (flipped["tta"], flipped["tiling"]) == ("flip", 24)
    root = Path(read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]["root"], "oxford-iiit-pet")
    predictor, counts = Predictor.load(run, tta="flip", tiling=24), np.zeros((3, 3), int)
    for line in (root / "annotations/test.txt").read_text().splitlines():
        name = line.split()[0]
        mask = np.asarray(Image.open(root / f"annotations/trimaps/{name}.png")) - 1
        np.add.at(counts, (mask, predictor(root / f"images/{name}.jpg").classes), 1)
    assert flipped["splits"]["test"]["original"]["trimap"]["confusion_matrix"] == counts.tolist()


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_an_export_scores_as_its_checkpoint_does(trained_run, tmp_path, name):
    pytest.importorskip({"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}[name])
    run = trained_run()
    root = read_checkpoint(run / "checkpoints/best.ckpt")[CHECKPOINT_KEY]["data"]["root"]
    overrides = [f"ckpt={run}", f"out={tmp_path}/graph", f"format={name}"]
    graph = export(compose("export", overrides, output_dir=tmp_path))
    scores = [
        score(tmp_path / f"{i}", f"ckpt={path}", f"data.root={root}", "trust_code=true")
        for i, path in enumerate((run, graph))
    ]
    for resolution in ("protocols", "original"):
        before, after = (one["splits"]["test"][resolution]["trimap"] for one in scores)
        assert after["miou"] == pytest.approx(before["miou"], abs=1e-3)
        assert after["accuracy"] == pytest.approx(before["accuracy"], abs=1e-3)
