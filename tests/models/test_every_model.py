"""The contract of every conf/model/*.yaml: a new one is tested the moment it exists."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

CONF = Path(__file__).parents[2] / "conf"
NUM_CLASSES = 4

pytestmark = pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))


def build(name: str) -> nn.Module:
    """The model of one YAML, narrow where it has a width."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"model/{name}").model
    if "base_channels" in config:
        config.base_channels = 4
    return instantiate(config, num_classes=NUM_CLASSES)


@pytest.fixture
def network(name: str) -> nn.Module:
    """In evaluation mode, after one batch's statistics."""
    torch.manual_seed(0)
    network = build(name)
    with torch.no_grad():
        network(torch.randn(4, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (64, 64)])
def test_logits_have_the_size_of_the_images(network, size):
    logits = network(torch.randn(2, 3, *size))
    assert logits.shape == (2, NUM_CLASSES, *size)
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(network):
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_image_does_not_depend_on_its_batch(network):
    images = torch.randn(3, 3, 17, 23)
    one_by_one = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), one_by_one, rtol=1e-4, atol=1e-5)


def test_channels_last_gives_the_same_logits_and_keeps_the_format(network):
    images = torch.randn(2, 3, 17, 23)
    expected = network(images)
    logits = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert logits.is_contiguous(memory_format=torch.channels_last)


def test_state_dict_makes_a_second_network_the_same(network, name):
    images = torch.randn(2, 3, 17, 23)
    second = build(name).eval()
    second.load_state_dict(network.state_dict())
    assert torch.equal(second(images), network(images))


def test_one_exported_program_runs_padded_and_unpadded_sizes(network):
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        network, (torch.randn(2, 3, 40, 57),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
    ).module()
    for size in [(1, 3, 64, 64), (3, 3, 33, 50)]:
        images = torch.randn(size)
        torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-5)
