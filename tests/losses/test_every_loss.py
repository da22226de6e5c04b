"""The contract of every conf/loss/*.yaml: a new one is tested the moment it exists."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

CONF = Path(__file__).parents[2] / "conf"
IGNORED = 255
NAMES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml") if not path.stem.startswith("_"))

every_loss = pytest.mark.parametrize("name", NAMES)


@cache
def config(name: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"loss/{name}").loss


def build(name: str) -> nn.Module:
    return instantiate(config(name), _convert_="all")


@pytest.fixture
def loss(name: str) -> nn.Module:
    return build(name)


def batch(num_classes: int = 3, size: tuple[int, int] = (9, 12)) -> tuple[Tensor, Tensor]:
    """Logits (4, K, H, W) and masks of rectangles of classes, of which a fifth of the pixels is ignored."""
    generator = torch.Generator().manual_seed(num_classes)
    cells = torch.randint(0, num_classes, (4, 3, 4), generator=generator).float()
    masks = nn.functional.interpolate(cells[None], size=size)[0].long()
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORED
    return 3 * torch.randn(4, num_classes, *size, generator=generator), masks


def gradient(loss: nn.Module, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, masks)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def right(masks: Tensor, num_classes: int, certainty: float) -> Tensor:
    """Logits that are right about every pixel."""
    return certainty * nn.functional.one_hot(masks.where(masks != IGNORED, 0), num_classes).movedim(-1, 1).float()


@every_loss
@pytest.mark.parametrize("num_classes", [2, 3, 37])
@pytest.mark.parametrize("size", [(1, 1), (9, 12)])
def test_a_loss_is_a_positive_scalar_in_float32_with_a_gradient(loss, num_classes, size):
    logits, masks = batch(num_classes, size)
    value, slope = gradient(loss, logits, masks)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert value > 0
    assert slope.isfinite().all()
    assert slope.any()


@every_loss
@pytest.mark.parametrize("num_classes", [2, 37])
def test_right_logits_cost_nothing_and_wrong_ones_the_more_the_surer_they_are(loss, num_classes):
    _, masks = batch(num_classes)
    costs = [float(loss(right(masks, num_classes, certainty), masks)) for certainty in (-20, -2, 0, 2, 40)]
    assert costs == sorted(costs, reverse=True)
    assert 0 <= costs[-1] < 1e-6
    assert costs[2] > 0.1


@every_loss
def test_following_the_gradient_leads_to_the_masks(loss):
    logits, masks = batch()
    logits = logits.div_(10).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        loss(logits, masks).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1)[masks != IGNORED], masks[masks != IGNORED])


@every_loss
def test_ignored_pixels_have_no_part_in_it(loss):
    logits, masks = batch()
    ignored = (masks == IGNORED)[:, None].expand_as(logits)
    value, slope = gradient(loss, logits, masks)
    assert not slope[ignored].any()
    other = torch.where(ignored, 30 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(other, masks), value, rtol=1e-6, atol=1e-7)


@every_loss
def test_a_batch_in_which_nothing_counts_costs_nothing_and_teaches_nothing(loss):
    logits, masks = batch()
    value, slope = gradient(loss, logits, masks.fill_(IGNORED))
    assert value.shape == ()
    assert value == 0
    assert torch.equal(slope, torch.zeros_like(slope))


@every_loss
@pytest.mark.parametrize("label", [0, 2])
def test_pictures_of_one_class_teach_that_class(loss, label):
    logits, masks = batch()
    value, slope = gradient(loss, logits, masks.fill_(label))
    assert value > 0
    assert slope.isfinite().all()
    assert (slope[:, label] <= 0).all()
    assert (slope[:, label] < 0).any()


@every_loss
@pytest.mark.parametrize("certainty", [-1e4, -100, 100, 1e4])
def test_logits_of_any_size_have_a_finite_loss_and_gradient(loss, certainty):
    _, masks = batch()
    value, slope = gradient(loss, right(masks, 3, certainty), masks)
    assert value.isfinite()
    assert value >= 0
    assert slope.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_logits_are_scored_in_float32(loss, dtype, autocast):
    logits, masks = batch()
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value, slope = gradient(loss, half, masks)
    expected, expected_slope = gradient(loss, half.float(), masks)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, expected_slope.to(dtype))
    torch.testing.assert_close(value, loss(logits, masks), rtol=2e-2, atol=0)


@every_loss
def test_order_of_images_and_of_classes_and_memory_format_change_nothing(loss):
    logits, masks = batch()
    value = loss(logits, masks)
    images, classes = torch.tensor([2, 0, 3, 1]), torch.tensor([2, 0, 1])
    new_label = torch.full((256,), IGNORED)
    new_label[classes] = torch.arange(3)
    for same in (
        loss(logits[images], masks[images]),
        loss(logits[:, classes], new_label[masks]),
        loss(logits.flip(3), masks.flip(2)),
        loss(logits.to(memory_format=torch.channels_last), masks),
    ):
        torch.testing.assert_close(same, value, rtol=1e-5, atol=1e-7)


@every_loss
def test_a_loss_adds_nothing_to_checkpoints(loss):
    assert loss.state_dict() == {}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "boundary"])
def test_no_loss_but_that_of_distances_waits_for_the_device(loss):
    logits, masks = torch.zeros(4, 3, 9, 12, device="meta", requires_grad=True), torch.zeros(4, 9, 12).long().to("meta")
    loss.to("meta")(logits, masks).backward()  # a value that is looked at raises there
    assert logits.grad is not None
