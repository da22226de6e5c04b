"""Averages of the weights, against averages by hand of what an undisturbed training had."""

import warnings

import numpy as np
import pytest
import torch
from lightning import Callback
from torch.nn import BatchNorm2d

from petseg_lightning.checks import check
from petseg_lightning.config import compose
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import load_module

EPOCHS = 4
EMA = ("callbacks=ema", "callbacks.weight_averaging.decay=0.6")
SWA = ("callbacks=swa", "callbacks.weight_averaging.start=0.5")


class Recorder(Callback):
    """The weights after every step, in float64, what is validated, and the pictures of the steps."""

    def __init__(self) -> None:
        self.steps, self.validated, self.pictures = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.steps.append({key: value.double().clone() for key, value in pl_module.state_dict().items()})
        self.pictures.append(batch["image"])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.validated.append({key: value.clone() for key, value in pl_module.state_dict().items()})


class Shown(Callback):
    """What a callback before that of the averages sees when a validation ends, as the pictures do."""

    def __init__(self) -> None:
        self.weights = []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.weights.append({key: value.clone() for key, value in pl_module.state_dict().items()})


@pytest.fixture(scope="module")
def plain(fit_tiny, tmp_path_factory):
    """An undisturbed training without averages."""
    recorder = Recorder()
    fit_tiny(tmp_path_factory.mktemp("plain"), "callbacks=default", epochs=EPOCHS, callbacks=[recorder])
    return recorder


@pytest.fixture(scope="module")
def averaged(fit_tiny, tmp_path_factory):
    """(overrides) -> the folder, what was recorded, the module, of a training with averages."""
    runs = {}

    def run(own):
        if own not in runs:
            folder, recorder = tmp_path_factory.mktemp("averaged"), Recorder()
            module, trainer = fit_tiny(folder, *own, epochs=EPOCHS, callbacks=[recorder])
            runs[own] = folder, recorder, module, trainer
        return runs[own]

    return run


def checkpoint(folder, name="last"):
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def assert_near(weights, expected):
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        if weights[key].is_floating_point():
            assert weights[key].double() == pytest.approx(value, rel=1e-5, abs=1e-6), key


def exponential(steps, decay=0.6):
    """By hand: of weights and normalization statistics."""
    average = steps[0]
    for number, current in enumerate(steps[1:], 1):
        share = min(decay, (1 + number) / (10 + number))
        average = {key: share * average[key] + (1 - share) * value for key, value in current.items()}
    return average


@pytest.mark.parametrize("own", [EMA, SWA])
def test_the_training_itself_is_not_changed(plain, averaged, own):
    for one, other in zip(plain.steps, averaged(own)[1].steps, strict=True):
        assert {key for key in one if not torch.equal(one[key], other[key])} == set()


def test_an_exponential_average_is_that_of_a_hand_and_is_what_is_validated_and_stored(plain, averaged):
    folder, recorder, module, _ = averaged(EMA)
    steps_of_an_epoch = len(plain.steps) // EPOCHS
    for epoch in range(EPOCHS):
        expected = exponential(plain.steps[: (epoch + 1) * steps_of_an_epoch])
        assert_near(recorder.validated[epoch], expected)
    assert_same(checkpoint(folder)["state_dict"], recorder.validated[-1])
    assert_same(load_module(folder / "checkpoints/last.ckpt").state_dict(), recorder.validated[-1])
    assert_same(module.state_dict(), recorder.validated[-1])


def test_what_is_no_average_stays_as_it_is(averaged):
    """A table of classes, 255 among them, would be cut to whole numbers below: 0.6 * 255 + 0.4 * 255 < 255."""
    _, _, module, _ = averaged(EMA)
    lookup = torch.full((256,), 255)
    lookup[: len(module.target.part_to_class)] = torch.tensor(module.target.part_to_class)
    assert torch.equal(module.class_of_part, lookup)
    assert torch.equal(module.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_pictures_of_a_validation_show_the_averages(fit_tiny, tmp_path, name):
    names = list(compose("train", [f"callbacks={name}"]).callbacks)
    assert names.index("validation_pictures") < names.index("weight_averaging")
    shown, recorder = Shown(), Recorder()
    fit_tiny(tmp_path, f"callbacks={name}", epochs=4, first=[shown], callbacks=[recorder])
    for one, other in zip(shown.weights, recorder.validated, strict=True):
        assert_same(one, other)


def test_a_stochastic_average_is_the_mean_of_the_last_epochs_ends_and_before_them_the_model_itself(plain, averaged):
    folder, recorder, _, _ = averaged(SWA)
    steps_of_an_epoch = len(plain.steps) // EPOCHS
    ends = plain.steps[steps_of_an_epoch - 1 :: steps_of_an_epoch]
    names = [key for key in ends[0] if "running" not in key and "num_batches" not in key]
    for epoch in (0, 1):
        assert_same(
            recorder.validated[epoch], {k: v.to(recorder.validated[0][k].dtype) for k, v in ends[epoch].items()}
        )
    for epoch, mean_of in ((2, ends[2:3]), (3, ends[2:4])):
        expected = {key: torch.stack([end[key] for end in mean_of]).mean(0) for key in names}
        assert_near({key: recorder.validated[epoch][key] for key in names}, expected)
    assert_same(checkpoint(folder)["state_dict"], recorder.validated[-1])


def test_statistics_of_a_stochastic_average_are_those_of_its_own_features(averaged):
    """Of the first normalization: the mean over the batches of an epoch of what comes into it."""
    folder, recorder, _, _ = averaged(SWA)
    module = load_module(folder / "checkpoints/last.ckpt")
    name, layer = next((n, m) for n, m in module.network.named_modules() if isinstance(m, BatchNorm2d))
    pictures = recorder.pictures[-len(recorder.pictures) // EPOCHS :]
    inputs = []
    layer.register_forward_pre_hook(lambda _, features: inputs.append(features[0].double().numpy()))
    with torch.no_grad():
        for picture in pictures:
            module(picture)
    means = np.mean([features.mean((0, 2, 3)) for features in inputs], axis=0)
    variances = np.mean([features.var((0, 2, 3), ddof=1) for features in inputs], axis=0)
    assert layer.running_mean.numpy() == pytest.approx(means, abs=1e-5), name
    assert layer.running_var.numpy() == pytest.approx(variances, rel=1e-4)


@pytest.mark.parametrize("own", [EMA, SWA])
def test_a_test_is_of_the_averages(averaged, own):
    """Lightning's callback would put the weights that train back in place before it."""
    folder, _, module, trainer = averaged(own)
    last = checkpoint(folder)
    assert any(not torch.equal(last["state_dict"][k], v) for k, v in last["current_model_state"].items())
    loader = trainer.datamodule.evaluation_dataloader("test")
    path = folder / "checkpoints/last.ckpt"
    with warnings.catch_warnings(record=True) as told:
        trainer.test(module, dataloaders=[loader], ckpt_path=path, verbose=False, weights_only=True)
    assert not [warning for warning in told if "WeightAveraging" in str(warning.message)]
    assert_same(module.state_dict(), last["state_dict"])


@pytest.mark.parametrize("own", [EMA, SWA])
@pytest.mark.parametrize("killed", [1, 3])
def test_a_resumed_training_has_the_averages_of_the_undisturbed_one(averaged, fit_tiny, tmp_path, own, killed):
    fit_tiny(tmp_path, *own, epochs=EPOCHS, killed=killed)
    fit_tiny(tmp_path, *own, epochs=EPOCHS, resume=tmp_path / "checkpoints/last.ckpt")
    for name in ("last", "best"):
        whole, resumed = (checkpoint(folder, name) for folder in (averaged(own)[0], tmp_path))
        for key in ("state_dict", "current_model_state", "averaging_state"):
            assert_same(resumed[key], whole[key])


def test_a_training_that_began_without_averages_can_go_on_with_them(fit_tiny, tmp_path):
    fit_tiny(tmp_path / "first", "callbacks=default", epochs=1)
    first = tmp_path / "first/checkpoints/last.ckpt"
    recorder = Recorder()
    fit_tiny(tmp_path / "second", *EMA, epochs=2, resume=first, callbacks=[recorder])
    assert_near(recorder.validated[-1], exponential(recorder.steps))


@pytest.mark.parametrize("callbacks", ["ema", "swa"])
def test_a_schedule_free_optimizer_has_its_own_average(callbacks):
    with pytest.raises(InputError, match=r"^a schedule-free optimizer averages the weights itself"):
        check(compose("train", ["data=synthetic", "optimizer=schedule_free_adamw", f"callbacks={callbacks}"]))
