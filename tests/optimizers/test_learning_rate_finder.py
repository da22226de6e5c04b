import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.checks import check
from petseg_lightning.config import build, compose
from petseg_lightning.errors import InputError
from petseg_lightning.finders.learning_rate import LearningRateFinder, valley
from petseg_lightning.training import find_values

FEW = ("find=lr", "find.lr.num_steps=30", "find.lr.min_lr=1e-5", "trainer=cpu", "augmentation=strong")


def test_the_middle_of_the_longest_descent_is_found():
    rates = 10.0 ** np.arange(-6, 1, 0.25)  # 28 of them
    losses = np.concatenate([np.ones(12), np.linspace(1, 0.2, 9)[1:], np.linspace(0.2, 2, 9)[1:]])
    assert valley(rates, losses) == pytest.approx(rates[(11 + 19) // 2])
    noisy = losses.copy()
    noisy[15] += 0.15  # one that does not descend
    assert valley(rates, noisy) == pytest.approx(rates[15])
    losses[-3:] = np.nan
    assert valley(rates, losses) == pytest.approx(rates[15])


@pytest.mark.parametrize("losses", [np.ones(40), np.linspace(1, 2, 40), np.full(40, np.nan), np.ones(3)])
def test_losses_that_fall_nowhere_are_said_so(losses):
    with pytest.raises(InputError, match=r"^find=lr: the loss fell at no rate in \d+ steps; .* or set optimizer\.lr$"):
        valley(np.logspace(-6, 0, len(losses)), losses)


def test_finding_changes_neither_weights_nor_random_numbers_nor_samples_and_is_written_down(tiny_parts, tmp_path):
    cfg, datamodule, module = tiny_parts(*FEW, folder=tmp_path)
    before = deepcopy(module.state_dict())
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = find_values(cfg, module, datamodule)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "lr_finder.png"}
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert 1e-5 < found["optimizer.lr"] < 1
    assert float(f"{found['optimizer.lr']:.3g}") == found["optimizer.lr"]
    assert Image.open(tmp_path / "lr_finder.png").width > 400
    assert cfg.optimizer.lr == found["optimizer.lr"]
    assert module.build_optimizer(module.parameters()).param_groups[0]["lr"] == found["optimizer.lr"]
    train = [batch["index"].tolist() for batch in datamodule.train_dataloader()]
    _, other, _ = tiny_parts("augmentation=strong")
    assert train == [batch["index"].tolist() for batch in other.train_dataloader()]


@pytest.mark.parametrize("optimizer", ["schedule_free_adamw", "timm"])
def test_every_kind_of_optimizer_has_a_rate(tiny_parts, tmp_path, optimizer):
    cfg, datamodule, module = tiny_parts(*FEW, f"optimizer={optimizer}", folder=tmp_path)
    assert find_values(cfg, module, datamodule).keys() == {"optimizer.lr"}


def test_groups_rise_at_their_parts_of_the_rate_and_divergence_ends_the_search(tiny_parts, tmp_path, monkeypatch):
    cfg, datamodule, module = tiny_parts("optimizer=timm", "optimizer.opt=sgd", "optimizer.layer_decay=0.5", *FEW)
    seen = []

    def step(self, batch, batch_idx):
        groups = self.trainer.optimizers[0].param_groups
        seen.append([group["lr"] for group in groups])
        return self.training_loss(batch) * (100 if len(seen) == 20 else 1)

    monkeypatch.setattr(type(module), "training_step", step)
    arguments = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0, "max_epochs": -1}
    rate = LearningRateFinder(1e-4, 1e-1, 31).find(
        module,
        datamodule,
        lambda lr: build(cfg.optimizer, lr=lr),
        lambda **more: build(cfg.trainer, precision="32-true", enable_progress_bar=False, **arguments, **more),
        tmp_path,
    )
    assert len(seen) == 20
    assert np.max(seen, axis=1) == pytest.approx(1e-4 * 10 ** (np.arange(20) / 10))
    parts = np.array(seen) / np.max(seen, axis=1, keepdims=True)
    assert parts == pytest.approx(np.broadcast_to(parts[0], parts.shape))
    assert set(parts[0].round(9)) == {1, 0.5, 0.25, 0.125}
    assert 1e-4 < rate < 1e-2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["find=lr", "ckpt_path=some.ckpt"], "a resumed training goes on with what was found"),
        (["find=batch_size", "trainer.devices=2"], r"trainer\.devices=2 does not go with find="),
        (["find=lr", "find.lr.min_lr=1"], r"find\.lr\.min_lr=1 must be below find\.lr\.max_lr=1\.0"),
    ],
)
def test_what_cannot_be_found_is_refused(overrides, words):
    with pytest.raises(InputError, match=words):
        check(compose("train", ["data=synthetic", *overrides]))
    check(compose("train", ["data=synthetic", "find=all", "trainer.devices=[0]"]))
