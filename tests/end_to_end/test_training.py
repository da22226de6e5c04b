"""A training and the run folder that it leaves."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Callback
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from petseg_lightning import evaluation
from petseg_lightning.config import build, compose
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.metrics.calibration import expected_miou
from petseg_lightning.metrics.forecast import fit_forecast
from petseg_lightning.models.unet import UNet
from petseg_lightning.segmenter import CHECKPOINT_KEY
from petseg_lightning.training import train

FILES = {
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "checkpoints/last-previous.ckpt",
    "checkpoints/replay.json",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "csv/hparams.yaml",
    "csv/metrics.csv",
    "data.json",
    "environment.json",
    "metrics.json",
    "per_image.csv",
    "pictures/pictures.json",
    "report.html",
    "tensorboard/hparams.yaml",
}


def read_metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def final_weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_cache_changes_no_result(train_small, tmp_path):
    """Files decoded at every access, kept in memory, and kept on disk: built in one run, found by the next."""
    kept = "augmentation=strong", "compute=exact", f"data.cache_dir={tmp_path / 'pictures'}"
    runs = {"none": "none", "memory": "memory", "disk": "disk", "again": "disk"}
    for name, cache in runs.items():
        train_small(tmp_path / name, *kept, f"data.cache={cache}", f"data.num_workers={2 * (name == 'again')}")
    for name in ("memory", "disk", "again"):
        assert_same_weights(final_weights(tmp_path / name), final_weights(tmp_path / "none"))
        for key in ("splits", "best_epoch"):
            assert read_metrics(tmp_path / name)[key] == read_metrics(tmp_path / "none")[key]


def test_trains_with_augmentation_on_the_device(train_small, tmp_path):
    metrics = train_small(tmp_path, "augmentation=strong", "data.device_augment=true", "data.num_workers=2")
    assert metrics["epochs"] == 2


def test_leaves_exactly_the_files_of_a_run_folder(trained_run):
    folder = trained_run()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pictures = {
        entry[kind]
        for entry in json.loads((folder / "pictures/pictures.json").read_text())
        for kind in ("image", "truth", "prediction")
    }
    events = {name for name in found if name.startswith("tensorboard/events.out.tfevents.")}
    assert events
    assert found - events == FILES | {f"pictures/{name}" for name in pictures}


def test_scores_agree_with_an_independent_evaluation(trained_run, small_overrides):
    """Decode, resize, normalize, predict and count again, with nothing of the program but the network."""
    folder = trained_run()
    root = compose("train", small_overrides, output_dir=folder).data.root + "/oxford-iiit-pet"
    checkpoint = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    network = UNet(3, base_channels=4)
    network.load_state_dict({key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()})
    network.eval()
    lines = Path(root, "annotations/test.txt").read_text().splitlines()
    names = [line.split()[0] for line in lines if not line.startswith("#")]
    truths, predictions = [], []
    for name in names:
        image = Image.open(f"{root}/images/{name}.jpg").resize((32, 32), Image.Resampling.BILINEAR)
        trimap = np.asarray(
            Image.open(f"{root}/annotations/trimaps/{name}.png").resize((32, 32), Image.Resampling.NEAREST)
        )
        pixels = (np.asarray(image, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            logits = network(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
        truths.append(trimap.ravel() - 1)
        predictions.append(logits.argmax(1).numpy().ravel())
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    scores = read_metrics(folder)["splits"]["test"]["protocols"]["trimap"]
    assert scores["confusion_matrix"] == confusion_matrix(truth, prediction, labels=range(3)).tolist()
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, prediction), abs=1e-12)
    iou = jaccard_score(truth, prediction, average=None, labels=range(3))
    assert list(scores["iou"].values()) == pytest.approx(iou, abs=1e-12)
    assert scores["miou"] == pytest.approx(iou.mean(), abs=1e-12)
    table = pd.read_csv(folder / "per_image.csv")
    assert table["name"].tolist() == names
    for row, one, other in zip(table.itertuples(), truths, predictions, strict=True):
        present = sorted(set(one) | set(other))
        assert row.miou == pytest.approx(jaccard_score(one, other, average="macro", labels=present), abs=1e-5)
        assert row.accuracy == pytest.approx(accuracy_score(one, other), abs=1e-5)
        assert row.pet_fraction == pytest.approx(np.mean(one != 1), abs=1e-5)


def test_tables_agree_with_each_other(trained_run):
    folder = trained_run("species")
    metrics, table = read_metrics(folder), pd.read_csv(folder / "per_image.csv")
    scores = metrics["splits"]["test"]["protocols"][metrics["headline"]]
    matrix = pd.read_csv(folder / "confusion_matrix.csv", index_col=0)
    assert matrix.to_numpy().tolist() == scores["confusion_matrix"]
    assert list(matrix.columns) == list(matrix.index) == ["background", "cat", "dog"]
    assert table["pixels"].sum() == matrix.to_numpy().sum() == 11 * 32 * 32
    assert table["correct"].sum() == np.trace(matrix)
    assert scores["mean_image_miou"] == pytest.approx(table["miou"].mean(), abs=1e-5)
    assert scores["lowest_image_miou"] == pytest.approx(table["miou"].min(), abs=1e-5)
    review = metrics["splits"]["test"]["calibration"]["review"]
    assert table["confidence"].between(0, 1).all()
    correlation = table["confidence"].corr(table["miou"], method="spearman")
    assert review["spearman"] == pytest.approx(correlation, abs=1e-5)
    assert review["num_bad"] == (table["miou"] < 0.5).sum()
    assert review["curve"]["rest_miou"][0] == pytest.approx(table["miou"].mean(), abs=1e-5)
    assert set(table["species"]) == {"cat", "dog"}
    assert {split: result["num_images"] for split, result in metrics["splits"].items()} == {
        "test": 11,
        "train": 34,
        "val": 8,
    }


def test_same_seed_gives_the_same_weights_and_metrics_with_and_without_workers(train_small, tmp_path):
    runs = []
    for workers in (0, 2, 0):
        folder = tmp_path / f"{len(runs)}"
        pasting = "augmentation=strong", "augmentation.copy_paste.p=0.5"
        metrics = train_small(folder, *pasting, f"data.num_workers={workers}", "seed=7")
        runs.append((final_weights(folder), {**metrics, "train_seconds": None, "images_per_second": None}))
    for weights, metrics in runs[1:]:
        assert_same_weights(weights, runs[0][0])
        assert metrics == runs[0][1]
    other = tmp_path / "other"
    train_small(other, "augmentation=strong", "seed=8")
    assert not torch.equal(final_weights(other)["network.classifier.weight"], runs[0][0]["network.classifier.weight"])


def test_the_best_checkpoint_knows_what_its_confidences_are_worth(train_small, tmp_path):
    """Predict the validation pictures one by one, and compare each with its mask by scikit-learn."""
    options = ["data.val_fraction=0.6", "trainer.max_epochs=1", "optimizer.lr=0.01", "data.batch_size=2"]
    train_small(tmp_path, *options, "compute=exact")
    best, last = (torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    found = best[CHECKPOINT_KEY].pop("forecast")
    assert found["pictures"] == 25
    assert found["slope"] > 0
    assert abs(best[CHECKPOINT_KEY]["temperature"] - 1) > 0.02
    assert best.keys() == last.keys()
    assert best[CHECKPOINT_KEY] == last[CHECKPOINT_KEY]
    assert_same_weights(best["state_dict"], last["state_dict"])
    module = load_module(tmp_path)
    data = best[CHECKPOINT_KEY]["data"]
    datamodule = build({**data, "_target_": "petseg_lightning.data.synthetic.SyntheticPetDataModule"})
    confidences, mious = [], []
    for index in range(25):
        image, parts = datamodule.pictures("val")[index]
        with torch.no_grad():
            logits = module(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        confidences.append(float(expected_miou((logits / best[CHECKPOINT_KEY]["temperature"]).softmax(1))[0]))
        truth, prediction = np.array(module.target.part_to_class)[parts].ravel(), logits.argmax(1).ravel().numpy()
        present = sorted({*truth, *prediction})
        mious.append(jaccard_score(truth, prediction, average="macro", labels=present))
    expected = fit_forecast(np.array(confidences), np.array(mious))
    assert found["slope"] == pytest.approx(expected["slope"], abs=1e-3)
    assert found["intercept"] == pytest.approx(expected["intercept"], abs=1e-3)
    assert found["errors"] == pytest.approx(expected["errors"], abs=1e-3)


class KilledError(Exception):
    pass


class KillAfter(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 3:
            raise KilledError


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle", "plateau", "none"])
def test_schedules_reach_their_end(train_small, tmp_path, scheduler):
    train_small(tmp_path, f"scheduler={scheduler}", "trainer.log_every_n_steps=1", "optimizer.lr=0.01")
    log = pd.read_csv(tmp_path / "csv/metrics.csv")
    rates = log.filter(like="lr-").iloc[:, 0].dropna().to_numpy()
    steps = 2 * math.ceil(34 / 4)
    if scheduler == "one_cycle":
        assert len(rates) == steps
        assert rates.argmax() == round(0.2 * steps - 1)
        assert rates.max() == pytest.approx(0.01, rel=0.02)
        assert rates[-1] < 1e-6
    elif scheduler == "cosine":
        assert rates == pytest.approx(0.005 * (1 + np.cos(np.pi * np.arange(steps) / steps)))
    else:
        assert set(rates) == {0.01}


def test_plateau_lowers_the_rate_when_the_score_does_not_rise(train_small, tmp_path):
    """In mode min no score is lower by all of itself, so that every epoch is without progress."""
    options = ("scheduler.scheduler.mode=min", "scheduler.scheduler.patience=0", "+scheduler.scheduler.threshold=1.0")
    train_small(tmp_path, "scheduler=plateau", *options, "trainer.max_epochs=3")
    rates = pd.read_csv(tmp_path / "csv/metrics.csv").filter(like="lr-").iloc[:, 0].dropna()
    assert rates.tolist() == pytest.approx([1e-3, 3e-4, 9e-5])


@pytest.mark.parametrize("preset", ["fdr", "overfit", "limit", "profiler"])
def test_debug_presets(train_small, tmp_path, preset):
    settings = ["debug=" + preset]
    if preset == "overfit":
        settings += ["optimizer.lr=1e-2", "trainer.max_epochs=25", "model=unet", "trainer.log_every_n_steps=1"]
    elif preset != "limit":
        settings += ["trainer.max_epochs=1"]
    else:
        settings += ["trainer.max_epochs=3"]
    metrics = train_small(tmp_path, *settings)
    assert (tmp_path / "report.html").is_file()
    if preset == "overfit":
        losses = pd.read_csv(tmp_path / "csv/metrics.csv")["train/loss"].dropna()
        assert losses.iloc[-1] < 0.5 * losses.iloc[0]
    if preset == "limit":
        assert metrics["splits"]["test"]["num_images"] == 8


@pytest.mark.parametrize(
    "options",
    [
        ("loss.class_weights=measured", "data.target=species", "data.border=ignore"),
        ("loss.class_weights=[1,2]", "data.target=binary", "model=fcn", "optimizer=adamw"),
        ("model=unet_no_skip", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0", "mixing=mixup"),
        ("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.1"),
        ("model=unet", "model.depth=2", "trainer.precision=bf16-mixed", "callbacks=early_stopping"),
    ],
)
def test_options_train(train_small, tmp_path, options):
    overrides = list(options)
    if "callbacks=early_stopping" in overrides:
        overrides += [
            "callbacks.early_stopping.patience=1",
            "callbacks.early_stopping.min_delta=1",
            "trainer.max_epochs=9",
        ]
    metrics = train_small(tmp_path, *overrides)
    assert 0 < metrics["splits"]["test"]["protocols"][metrics["headline"]]["accuracy"] < 1
    assert metrics["epochs"] == 2


def test_loggers_are_closed_when_a_training_fails(small_overrides, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger.finalize", lambda _, status: closed.append(status))
    killer = ["+callbacks.kill._target_=test_training.KillAfter", "+callbacks.kill.epoch=0"]
    with pytest.raises(KilledError):
        train(compose("train", [*small_overrides, *killer], output_dir=tmp_path))
    assert closed[-1] == "failed"


def test_the_pictures_of_a_run_show_the_model_in_evaluation_mode(train_small, tmp_path, monkeypatch):
    """Of the test before them, Lightning leaves it in training mode: it would normalize by a single picture."""
    modes = []
    monkeypatch.setattr(evaluation, "write_pictures", lambda *args: modes.extend(m.training for m in args[1].modules()))
    monkeypatch.setattr("petseg_lightning.report.page.write_report", lambda _: None)
    train_small(tmp_path, "trainer.max_epochs=1")
    assert modes
    assert not any(modes)
