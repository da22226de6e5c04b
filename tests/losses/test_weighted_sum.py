import pytest
import torch

from petseg_lightning.checks import check
from petseg_lightning.config import build, compose
from petseg_lightning.errors import InputError
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.losses.focal import FocalLoss
from petseg_lightning.losses.lovasz import LovaszLoss
from petseg_lightning.losses.tversky import TverskyLoss
from petseg_lightning.losses.weighted_sum import WeightedSum
from petseg_lightning.training import build_datamodule, build_module


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, 3, 4, 5, generator=generator), torch.randint(0, 3, (2, 4, 5), generator=generator)


def of_command_line(*overrides: str) -> torch.Tensor:
    cfg = compose("train", overrides)
    check(cfg)
    return build(cfg.loss)(*batch())


def test_sum_and_gradient_are_those_of_the_weighted_terms():
    logits, masks = batch()
    logits.requires_grad_()
    terms = {"cross_entropy": CrossEntropyLoss(), "focal": FocalLoss(), "off": LovaszLoss()}
    found = WeightedSum(terms, {"cross_entropy": 0.25, "focal": 3, "off": 0})(logits, masks)
    expected = 0.25 * CrossEntropyLoss()(logits, masks) + 3 * FocalLoss()(logits, masks)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


def test_terms_of_the_preset_are_changed_replaced_added_and_removed_from_the_command_line():
    preset = "loss=cross_entropy_dice"
    cross_entropy, dice = CrossEntropyLoss()(*batch()), TverskyLoss(0.5, 0.5)(*batch())
    tversky, lovasz = TverskyLoss(0.1, 0.7)(*batch()), LovaszLoss()(*batch())
    smoothed = CrossEntropyLoss([1, 2, 3], 0.1)(*batch())
    changed = ["loss.terms.cross_entropy.class_weights=[1,2,3]", "loss.terms.cross_entropy.label_smoothing=0.1"]
    for overrides, expected in (
        ([], cross_entropy + dice),
        (["loss.weights.dice=0.5", *changed], smoothed + 0.5 * dice),
        (["loss@loss.terms.dice=tversky", "loss.terms.dice.alpha=0.1"], cross_entropy + tversky),
        (
            ["+loss@loss.terms.lovasz=lovasz", "+loss.weights.lovasz=2"],
            cross_entropy + dice + 2 * lovasz,
        ),
        (["~loss@loss.terms.dice", "~loss.weights.dice"], cross_entropy),
    ):
        torch.testing.assert_close(of_command_line(preset, *overrides), expected)


@pytest.mark.parametrize("weights", [{}, {"dice": 1.0}, {"cross_entropy": 1.0, "dice": 1.0}])
def test_terms_without_a_weight_and_weights_without_a_term_are_refused(weights):
    with pytest.raises(InputError, match=r"loss\.terms are cross_entropy and .*: give each term its weight"):
        WeightedSum({"cross_entropy": CrossEntropyLoss()}, weights)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.weights.dice=-1", r"loss\.weights=.* must be a number, at least 0, for each term"),
        ("loss.terms.dice.smooth=-1", r"loss\.terms\.dice\.smooth=-1 must be a number, at least 0"),
        ("loss.terms.cross_entropy.class_weights=none", r"loss\..*class_weights=none must be null or measured, or"),
    ],
)
def test_values_of_terms_are_checked_like_those_of_a_loss(override, message):
    with pytest.raises(InputError, match=message):
        check(compose("train", ["loss=cross_entropy_dice", override]))


def test_class_weights_of_a_term_are_measured(tiny_pets):
    weighted = "loss.terms.cross_entropy.class_weights=measured"
    cfg = compose("train", [f"data.root={tiny_pets()}", "data.image_size=16", "loss=cross_entropy_dice", weighted])
    datamodule = build_datamodule(cfg)
    loss = build_module(cfg, datamodule).loss
    assert loss.terms["cross_entropy"].class_weights.tolist() == pytest.approx(datamodule.class_weights())
