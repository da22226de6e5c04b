"""A training that is interrupted, wherever it is, and goes on as if it had not been."""

import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning import Callback

from petseg_lightning.config import compose
from petseg_lightning.errors import DivergedError, InputError, StoppedError
from petseg_lightning.training import train

AVERAGES = {"ema": "callbacks=ema", "swa": "callbacks=swa", "schedule_free": "optimizer=schedule_free_adamw"}
SETTINGS = {  # each with what another way of going on would get wrong
    "plain": (
        "scheduler=one_cycle",
        "trainer.log_every_n_steps=1",
    ),  # the number of steps is asked for before the start
    "workers": ("augmentation=copy_paste", "mixing=cutmix", "data.num_workers=2"),
    "plateau": ("scheduler=plateau", "scheduler.scheduler.patience=0", "optimizer=sgd"),
    "accumulation": ("trainer.accumulate_grad_batches=2", "augmentation=strong", "data.num_workers=1"),
    "early_stopping": ("callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
    "dropout": ("model=smp", "model.arch=FPN", "model.encoder=resnet18"),
    **{
        name: (choice, "callbacks.weight_averaging.start=0.25")[: 1 + (name == "swa")]
        for name, choice in AVERAGES.items()
    },
}
PLACES = {"step": (1, 4), "end": (1, 8), "last": (2, 8)}  # epoch and batch of 3 x 9


class Interrupt(Callback):
    """Asks for the end in the middle of a step, as a batch system does."""

    at: tuple[int, int] | None = None
    signum = signal.SIGTERM

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == Interrupt.at:
            Interrupt.at = None
            os.kill(os.getpid(), Interrupt.signum)


@pytest.fixture
def settings(small_overrides):
    """(overrides...) -> those of a training of three epochs that can be interrupted."""

    def make(*overrides: str) -> list[str]:
        given = [one for one in small_overrides if not ("model=smp" in overrides and one.startswith("model."))]
        return [*given, "trainer.max_epochs=3", "+callbacks.stop._target_=test_resuming.Interrupt", *overrides]

    return make


def run(folder: Path, settings: list[str], **changed) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    cfg = compose("train", settings, output_dir=folder)
    for key, value in changed.items():
        cfg[key] = value
    return train(cfg)


def interrupted(folder: Path, settings: list[str], at: tuple[int, int], signum: int = signal.SIGTERM) -> StoppedError:
    Interrupt.at, Interrupt.signum = at, signum
    with pytest.raises(StoppedError) as stopped:
        run(folder, settings)
    assert not (folder / "report.html").exists()
    return stopped.value


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights, best and last, with all that the last goes on from."""
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (one, other))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state"):
            if not _equal(first.get(part), second.get(part)):
                return False
    return True


def _equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


@pytest.mark.parametrize("name", SETTINGS)
def test_ends_where_the_undisturbed_one_ends(settings, tmp_path, name):
    chosen = settings(*SETTINGS[name])
    whole = run(tmp_path / "whole", chosen)
    for place, at in PLACES.items() if name == "plain" else [("step", PLACES["step"])]:
        folder = tmp_path / place
        interrupted(folder, chosen, at)
        resumed = run(folder, chosen, resume=str(folder))
        assert same(folder, tmp_path / "whole")
        for key in ("splits", "best_epoch", "epochs"):
            assert resumed[key] == whole[key]
        one, other = (pd.read_csv(one / "csv/metrics.csv") for one in (folder, tmp_path / "whole"))
        columns = ["epoch", "step", "val/loss", "val/miou"]
        kept = one[columns].dropna().reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, other[columns].dropna().reset_index(drop=True))
        assert not list(folder.rglob(".unfinished_*"))
        last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        assert resumed["train_seconds"] == round(last["callbacks"]["Throughput"]["seconds"], 1)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_every_signal_says_how_it_goes_on_and_has_its_code(settings, tmp_path, signum, code):
    stopped = interrupted(tmp_path, settings(), PLACES["step"], signum)
    assert stopped.exit_code == code
    assert str(stopped) == f"stopped by {signal.Signals(signum).name}; petseg train resume={tmp_path} goes on"
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 14
    assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_then_to_the_best(settings, tmp_path, caplog):
    chosen = settings("augmentation=light", "data.num_workers=1")
    run(tmp_path / "whole", chosen)
    interrupted(tmp_path / "a", chosen, PLACES["step"])
    last, previous = (tmp_path / "a/checkpoints" / name for name in ("last.ckpt", "last-previous.ckpt"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # of a tensor: no other reader notices
    last.write_bytes(content)
    previous.write_bytes(b"half")
    run(tmp_path / "a", chosen, resume=str(tmp_path / "a"))
    assert "going on from" in caplog.text
    assert "best.ckpt" in caplog.text
    assert same(tmp_path / "a", tmp_path / "whole")


def test_what_follows_the_training_is_made_up_for(settings, tmp_path):
    """Killed in the test: nothing is trained again, and what is missing is tested and reported."""
    whole = run(tmp_path, settings())
    steps = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    for missing in (["report.html"], ["report.html", "environment.json"], ["metrics.json"]):
        for name in missing:
            (tmp_path / name).unlink()
        again = run(tmp_path, settings(), resume=str(tmp_path))
        assert again["splits"] == whole["splits"]
        assert all((tmp_path / name).is_file() for name in ("report.html", "environment.json", "metrics.json"))
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == steps


def test_goes_on_longer_in_its_own_folder(settings, tmp_path):
    run(tmp_path / "whole", settings("trainer.max_epochs=3", "callbacks=ema"))
    run(tmp_path / "a", settings("callbacks=ema", "trainer.max_epochs=2"))
    metrics = run(tmp_path / "a", settings("callbacks=ema"), resume=str(tmp_path / "a"))
    assert metrics["epochs"] == 3
    assert same(tmp_path / "a", tmp_path / "whole")


@pytest.mark.parametrize(
    "forgotten",
    [
        *("data.batch_size=5", "seed=1", "data.split_seed=1", "loss=dice", "augmentation=light", "data.image_size=64"),
        *("optimizer.lr=0.1", "model.base_channels=5", "data.target=binary", "mixing=mixup", "callbacks=ema"),
    ],
)
def test_other_settings_are_refused_by_name(trained_run, small_overrides, tmp_path, forgotten):
    key = forgotten.partition("=")[0]
    with pytest.raises(InputError, match=rf"is of another training \(.*{key}.*: give the same settings"):
        run(
            tmp_path,
            [*small_overrides, "compute=exact", forgotten, "trainer.max_epochs=3", f"ckpt_path={trained_run()}"],
        )
    assert list(tmp_path.iterdir()) == []


def test_other_data_are_refused(trained_run, small_overrides, tmp_path):
    more = [*small_overrides, "compute=exact", "trainer.max_epochs=3", f"ckpt_path={trained_run()}"]
    more += ["data.num_test=12", f"data.root={tmp_path}/pets"]
    with pytest.raises(InputError, match=r"data\.num_test: 11 there, 12 here; data: other pictures"):
        run(tmp_path / "run", more)


def test_a_training_that_diverges_ends_with_its_report(small_overrides, tmp_path):
    diverging = [*small_overrides, "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=3"]
    with pytest.raises(
        DivergedError, match=r"not finite at step 2 \(epoch 1, learning rate 1e\+30, pictures \w+_\d+, "
    ):
        run(tmp_path, diverging)
    assert "This training diverged" in (tmp_path / "report.html").read_text()
    for path in (tmp_path / "checkpoints").iterdir():
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("settings", {"config": {}, "found": {"model._target_": "os.system"}, "data": ""}),
        ("settings", None),
        ("global_step", "3"),
        ("callbacks", [1]),
        ("loops", {"fit_loop": 3}),
        ("optimizer_states", [{"state": {0: "x"}, "param_groups": 3}]),
    ],
)
def test_a_hostile_checkpoint_is_one_line(trained_run, small_overrides, tmp_path, part, value):
    path = tmp_path / "last.ckpt"
    shutil.copyfile(trained_run() / "checkpoints/last.ckpt", path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[part] = value
    torch.save(checkpoint, path)
    settings = [*small_overrides, "compute=exact", "trainer.max_epochs=3", f"ckpt_path={path}"]
    with pytest.raises(InputError, match=r"last\.ckpt (does not hold|is not) what a training (goes|can go) on from"):
        train(compose("train", settings, output_dir=tmp_path / "run"))
