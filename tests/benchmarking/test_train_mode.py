"""The training beside plain loops: what is left, and what it is computed from."""

import functools
import json
import os
import statistics
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from petseg_lightning.benchmarking import train_mode
from petseg_lightning.benchmarking.plain_loop import PlainLoop
from petseg_lightning.benchmarking.train_mode import PartsProfiler
from petseg_lightning.config import compose
from petseg_lightning.models.unet import UNet

SCHEMA = {
    "compute": dict,
    "batches_per_round": int,
    "rates": dict,
    "peak_memory_mib": int,
    "overhead": float,
    "of_network": float,
    "speedup": float,
    "parts_ms": dict,
    "gflop_per_image": float,
    "tflop_per_second": float,
    "matmul_tflop_per_second": float,
    "flop_utilization": float,
}
PARTS = [
    "data wait",
    "transfer",
    "forward and loss",
    "backward",
    "optimizer",
    "metrics, logging, callbacks",
]


def median_ratio(rates, name, other):
    return statistics.median(mine / theirs for mine, theirs in zip(rates[name], rates[other], strict=True))


def flops_of_convolutions(network, size):
    """Forward and backward of one image, counted by hooks: a multiply-add is 2, and a backward 2 forwards."""
    total = []

    def count(layer, inputs, output):
        forward = 2 * layer.weight.numel() * output.shape[-2] * output.shape[-1]
        total.append(forward * (3 if inputs[0].requires_grad else 2))  # none for the picture

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(2, 3, size, size))
    return sum(total)


def test_leaves_rates_ratios_parts_and_a_picture(measured, capsys):
    results, folder = measured("mode=train", "compute=exact", "rounds=3")
    assert list(results) == ["model", "image_size", "batch_size", "threads", "train", "environment"]
    assert results["image_size"] == 32
    assert results["batch_size"] == 4
    train = results["train"]
    assert {key: type(value) for key, value in train.items()} == SCHEMA
    assert train["compute"] == {"precision": "32-true", "channels_last": False, "compile": False}
    rates = train["rates"]
    assert {name: len(values) for name, values in rates.items()} == dict.fromkeys(
        ["plain", "same", "network", "training"], 3
    )
    assert all(rate > 0 for values in rates.values() for rate in values)
    assert 3 <= train["batches_per_round"] <= 9  # 36 pictures in batches of 4
    assert train["overhead"] == median_ratio(rates, "training", "same")
    assert train["of_network"] == median_ratio(rates, "training", "network")
    assert train["speedup"] == median_ratio(rates, "training", "plain")
    assert list(train["parts_ms"]) == PARTS
    assert all(train["parts_ms"][part] > 0 for part in PARTS if part != "optimizer")  # that one is a difference
    cfg = compose("benchmark", ["model.base_channels=4"])
    network = UNet(3, **{key: value for key, value in cfg.model.items() if key != "_target_"})
    flops = flops_of_convolutions(network, 32)
    assert train["gflop_per_image"] == pytest.approx(flops / 1e9)
    speed = flops * statistics.median(rates["training"])
    assert train["tflop_per_second"] == pytest.approx(speed / 1e12)
    assert train["flop_utilization"] == pytest.approx(speed / 1e12 / train["matmul_tflop_per_second"])
    with Image.open(folder / "benchmark.png") as image:
        image.load()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"run folder  {folder}"
    assert lines[-2].startswith("Bottleneck: ")
    assert f"at {train['speedup']:.2f} times the plain loop in fp32" in lines[-3]


@pytest.fixture
def loop():
    torch.manual_seed(0)
    images, masks = torch.randn(7, 3, 8, 8), torch.randint(3, (7, 8, 8))
    masks[0] = 255
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    return PlainLoop(UNet(3, base_channels=2, depth=1), images, masks, optimizer, 3, torch.device("cpu"))


def test_a_plain_loop_counts_the_images_it_has_trained_on(loop, monkeypatch):
    sizes = []
    monkeypatch.setattr(loop, "_step", lambda images, masks: sizes.append((len(images), len(masks))))
    assert loop.steps(2) == 6
    assert loop.steps(3) == 7
    assert loop.steps(4) == 10  # from the beginning again
    assert loop.steps_on_one(4) == 12
    assert sizes == [(3, 3)] * 2 + [(3, 3), (3, 3), (1, 1)] * 2 + [(3, 3)] * 5


def test_a_plain_loop_trains(loop):
    """One step against autograd by hand."""
    before = [p.detach().clone() for p in loop.network.parameters()]
    loss = F.cross_entropy(loop.network(loop.images[:3]), loop.masks[:3], ignore_index=255)
    gradients = torch.autograd.grad(loss, list(loop.network.parameters()))
    loop.steps_on_one(1)
    for parameter, old, gradient in zip(loop.network.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(parameter, old - 0.1 * gradient)


def test_the_profiler_waits_for_the_device_at_both_ends(monkeypatch):
    waited = []
    monkeypatch.setattr(train_mode, "synchronize", waited.append)
    profiler = PartsProfiler(torch.device("cuda"))
    with profiler.profile("[Strategy]X.training_step"):
        assert len(waited) == 1
    assert waited == [torch.device("cuda")] * 2
    profiler.recorded_durations["[Strategy]X.training_step"] = [9.0, 1.0, 2.0, 6.0]
    assert profiler.milliseconds("X.training_step") == 2000
    assert profiler.milliseconds("X.validation_step") == 0


@pytest.mark.slow
def test_two_devices_give_the_scaling_efficiency(tiny_overrides, tmp_path):
    settings = [text for text in tiny_overrides if text != "trainer=cpu"]
    command = [sys.executable, "-m", "petseg_lightning.benchmark", *settings, "mode=train"]
    done = subprocess.run(
        [*command, "trainer=ddp_cpu", "trainer.devices=2", "compute=exact", "hydra.run.dir=run"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    train = json.loads((tmp_path / "run/benchmark.json").read_text())["train"]
    assert train["devices"] == 2
    assert {name: len(values) for name, values in train["rates"].items()} == {"alone": 2, "training": 2}
    assert train["scaling_efficiency"] == median_ratio(train["rates"], "training", "alone") / 2
    assert done.stdout.count("scaling efficiency") == 1
    assert f"2 devices: scaling efficiency {train['scaling_efficiency']:.2f}." in done.stdout
    assert (tmp_path / "run/benchmark.png").is_file()
