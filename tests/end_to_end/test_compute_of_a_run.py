"""The chosen way to compute, from a training to its resumption and its evaluation."""

import json
import subprocess
import sys

import pytest
import torch

from petseg_lightning.compute import Compute
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import read_checkpoint
from petseg_lightning.scoring import score_checkpoint
from petseg_lightning.segmenter import CHECKPOINT_KEY

FAST = {"precision": "bf16-mixed", "channels_last": True, "compile": False}
PLAIN = vars(Compute())


@pytest.fixture
def cpu(monkeypatch):
    """(whether it has units for bf16) -> such a processor."""

    def have(bf16: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})

    return have


def stored(folder):
    return read_checkpoint(folder / "checkpoints/last.ckpt")[CHECKPOINT_KEY]["compute"]


def of_environment(folder):
    return json.loads((folder / "environment.json").read_text())["compute"]


def score(folder, run, *overrides):
    folder.mkdir()
    settings = [f"ckpt={run}", "~callbacks.progress_bar", "trainer=cpu", *overrides]
    return score_checkpoint(compose("evaluate", settings, output_dir=folder))


def test_is_noted_resumed_and_used_for_the_same_scores(train_small, tmp_path, cpu):
    cpu(bf16=True)
    first = train_small(tmp_path / "first")
    assert stored(tmp_path / "first") == of_environment(tmp_path / "first") == FAST

    scored = score(tmp_path / "scored", tmp_path / "first")
    assert of_environment(tmp_path / "scored") == FAST
    test = {key: value for key, value in scored["splits"]["test"].items() if key != "original"}
    assert test == first["splits"]["test"]
    score(tmp_path / "plain", tmp_path / "first", "trainer.precision=32-true", "compute.channels_last=false")
    assert of_environment(tmp_path / "plain") == PLAIN

    cpu(bf16=False)
    score(tmp_path / "elsewhere", tmp_path / "first")
    assert of_environment(tmp_path / "elsewhere") == {**FAST, "precision": "32-true"}
    train_small(tmp_path / "resumed", f"ckpt_path={tmp_path / 'first'}", "trainer.max_epochs=3")
    assert stored(tmp_path / "resumed") == FAST


def test_is_the_same_for_a_training_of_one_step_beside_other_work(train_small, tmp_path, cpu, monkeypatch):
    cpu(bf16=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache_home"))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        train_small(tmp_path / "run", "debug=limit", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert stored(tmp_path / "run") == FAST
    assert not (tmp_path / "cache_home").exists()


def test_exact_is_plain_whatever_the_device_can_do(train_small, tmp_path, cpu):
    cpu(bf16=True)
    train_small(tmp_path / "run", "compute=exact", "trainer.max_epochs=1")
    assert stored(tmp_path / "run") == PLAIN
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["fused"] is False
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled() or torch.is_deterministic_algorithms_warn_only_enabled()


def test_compiled_steps_of_a_training(train_small, tmp_path, monkeypatch):
    """By a compiler that only counts. The training has 34 pictures: 8 batches of 4, and one of 2."""
    sizes = []

    def compile(function, **_):
        def compiled(images):
            sizes.append(len(images))
            return function(images)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    run = tmp_path / "run"
    metrics = train_small(run, "compute.compile=true", "trainer.precision=32-true", "compute.channels_last=false")
    assert [size for size in sizes if size != 8] == [4] * 2 * 8  # 8: whether there is a compiler
    assert stored(run) == {**PLAIN, "compile": True}
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not [key for key in weights if "_orig_mod" in key]
    before = len(sizes)
    test = score(tmp_path / "scored", run)["splits"]["test"]
    assert len(sizes) == before
    assert of_environment(tmp_path / "scored") == PLAIN
    assert {key: value for key, value in test.items() if key != "original"} == metrics["splits"]["test"]


def test_without_a_compiler_the_answer_comes_before_anything_is_written(train_small, tmp_path, monkeypatch):
    def broken(function, **_):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"^compute.compile=true: .*\(no compiler\); install") as caught:
        train_small(tmp_path / "run", "compute.compile=true")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "run").iterdir()) == []
