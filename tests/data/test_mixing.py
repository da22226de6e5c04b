"""Mixed batches beside slow loops over their pixels."""

import numpy as np
import pytest
import torch
from torch import nn

from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose
from petseg_lightning.data.mixing import CutMix, MixUp
from petseg_lightning.data.targets import pet_target
from petseg_lightning.module import SegmentationModule

BOTH = pytest.mark.parametrize("mix", [MixUp(0.4, 1.0), CutMix(1.0, 1.0)], ids=["mixup", "cutmix"])


def batch(size: int = 3, height: int = 10, width: int = 20) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(256, (size, height, width, 3), dtype=torch.uint8, generator=generator).movedim(3, 1),
        "parts": torch.randint(5, (size, height, width), dtype=torch.uint8, generator=generator),
        "index": torch.arange(size),
    }


class At:
    """A generator that puts the centre of a rectangle where it is wanted."""

    def __init__(self, *centre: float) -> None:
        self.centre = np.array(centre)

    def uniform(self, low, high):
        assert low == 0
        assert list(high) == [10, 20]
        return self.centre


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_blends_each_picture_with_the_one_before_it_and_keeps_both_masks(share):
    given = batch()
    mixed = MixUp(0.4, 1.0).mixed(given, share, np.random.default_rng())
    assert mixed["other_share"] == share
    for i in range(3):
        for c, y, x in np.ndindex(3, 10, 20):
            exact = (1 - share) * int(given["image"][i, c, y, x]) + share * int(given["image"][i - 1, c, y, x])
            assert abs(int(mixed["image"][i, c, y, x]) - exact) < 0.5 + 1e-3
        assert torch.equal(mixed["parts"][i], given["parts"][i])
        assert torch.equal(mixed["other_parts"][i], given["parts"][i - 1])


@pytest.mark.parametrize(
    ("centre", "share", "rows", "columns"),
    [
        ((4.2, 9.1), 0.16, range(2, 6), range(5, 13)),  # 2.2 to 6.2, 5.1 to 13.1
        ((0.4, 19.6), 0.25, range(3), range(15, 20)),  # cut by the border
        ((5.0, 10.0), 1.0, range(10), range(20)),
        ((5.1, 10.1), 0.0, range(0), range(0)),
    ],
)
def test_cutmix_takes_a_rectangle_of_picture_and_mask_from_the_one_before(centre, share, rows, columns):
    given = batch()
    mixed = CutMix(1.0, 1.0).mixed(given, share, At(*centre))
    for i in range(3):
        for y, x in np.ndindex(10, 20):
            source = i - 1 if y in rows and x in columns else i
            assert torch.equal(mixed["image"][i, :, y, x], given["image"][source, :, y, x])
            assert mixed["parts"][i, y, x] == given["parts"][source, y, x]
    assert "other_parts" not in mixed


def test_the_shares_of_the_classes_are_those_of_the_pasted_areas():
    """Every mask of a single part: what is not the picture's own was pasted."""
    given = batch(4, 64, 64)
    given["parts"] = torch.arange(4, dtype=torch.uint8)[:, None, None].expand(4, 64, 64).contiguous()
    given["image"] = (60 * given["parts"])[:, None].repeat(1, 3, 1, 1)
    shares = []
    for number in range(400):
        mixed = CutMix(1.0, 1.0)(given, 0, number)
        assert torch.equal(mixed["image"], (60 * mixed["parts"])[:, None].repeat(1, 3, 1, 1))
        pasted = mixed["parts"] != given["parts"]
        assert (mixed["parts"][pasted] == given["parts"].roll(1, 0)[pasted]).all()
        assert (pasted == pasted[0]).all()
        rows, columns = pasted[0].any(1), pasted[0].any(0)
        assert torch.equal(pasted[0], rows[:, None] & columns)
        shares.append(float(pasted.float().mean()))
    # of a uniform share s the border cuts, on average, sqrt(s) / 4 of each side: E[s (1 - sqrt(s) / 4)^2]
    assert np.mean(shares) == pytest.approx(1 / 2 - 2 / 4 * 2 / 5 + 1 / 16 / 3, abs=0.04)


@BOTH
def test_a_draw_depends_on_seed_epoch_number_and_rank(mix):
    given, kind = batch(), type(mix)
    first = mix(given, 1, 2, 3)
    assert torch.equal(kind(mix.alpha, 1.0)(given, 1, 2, 3)["image"], first["image"])
    for other in (kind(mix.alpha, 1.0, seed=9)(given, 1, 2, 3), *(mix(given, *key) for key in ((0, 2, 3), (1, 0, 3)))):
        assert not torch.equal(other["image"], first["image"])
    assert not torch.equal(mix(given, 1, 2, 0)["image"], first["image"])


@BOTH
def test_sizes_types_and_memory_format_stay_and_the_batch_too(mix):
    given = batch()
    kept = {key: value.clone() for key, value in given.items()}
    for number in range(5):
        mixed = mix(given, 0, number)
        for key in given:
            assert torch.equal(given[key], kept[key])
            assert (mixed[key].dtype, mixed[key].shape) == (given[key].dtype, given[key].shape)
            assert mixed[key].stride() == given[key].stride()  # else the compiled network would be compiled again


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_p_is_how_many_batches_are_mixed(kind):
    given = batch()
    assert all(kind(1.0, 0.0)(given, 0, number) is given for number in range(50))
    mixed = sum(kind(1.0, 0.3)(given, 0, number) is not given for number in range(1000))
    assert 250 < mixed < 350


@pytest.mark.parametrize(("alpha", "middle"), [(0.2, 0.15), (1.0, 0.5), (5.0, 0.89)])
def test_the_share_is_drawn_from_a_beta_distribution(alpha, middle):
    shares = np.array([MixUp(alpha, 1.0)(batch(2, 2, 2), 0, number)["other_share"] for number in range(1000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert ((shares > 0.25) & (shares < 0.75)).mean() == pytest.approx(middle, abs=0.06)


# ---- in the module


def module(loss: str, **options) -> SegmentationModule:
    torch.manual_seed(0)
    criterion = build(compose("train", [f"loss={loss}"]).loss)
    return SegmentationModule(
        nn.Conv2d(3, 3, 3, padding=1), criterion, pet_target("trimap"), [0.5] * 3, [0.2] * 3, **options
    )


@pytest.mark.parametrize("loss", options("loss"))
def test_a_blended_batch_has_the_blended_loss_of_both_masks(loss):
    given, own = batch(4, 16, 16), module(loss)
    given["parts"][:, :8] = 0
    other = {**given, "parts": given["parts"].roll(1, 0)}
    plain, others = own.training_loss(given), own.training_loss(other)
    assert not torch.isclose(plain, others)
    for share in (0.0, 0.3, 1.0):
        blended = own.training_loss({**given, "other_parts": other["parts"], "other_share": share})
        torch.testing.assert_close(blended, (1 - share) * plain + share * others)
        assert share > 0 or torch.equal(blended, plain)
        own.zero_grad()
        blended.backward()
        assert own.network.weight.grad.isfinite().all()


def test_a_training_step_mixes_by_epoch_batch_and_rank_and_a_validation_step_never(monkeypatch):
    calls = []

    def mixing(one, epoch, number, rank):
        calls.append((epoch, number, rank))
        return {**one, "image": torch.zeros_like(one["image"])}

    own, given = module("cross_entropy", mixing=mixing), batch()
    monkeypatch.setattr(own, "log", lambda *_, **__: None)
    monkeypatch.setattr(SegmentationModule, "current_epoch", 4)
    monkeypatch.setattr(SegmentationModule, "global_rank", 2)
    loss = own.training_step(given, 7)
    assert calls == [(4, 7, 2)]
    assert loss == own.training_loss({**given, "image": torch.zeros_like(given["image"])})
    own.on_validation_epoch_start()
    own.validation_step(given, 7)
    assert len(calls) == 1
