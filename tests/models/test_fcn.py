import pytest
import torch
from torch import nn

from petseg_lightning.errors import InputError
from petseg_lightning.models.fcn import FCN
from petseg_lightning.models.unet import UNet


def constant_scores(network: FCN) -> None:
    """Let every classifier give its own constant, whatever it sees: 1, 10, 100, ... from fine to coarse."""
    for exponent, classifier in enumerate(network.classifiers):
        nn.init.zeros_(classifier.weight)
        nn.init.constant_(classifier.bias, 10.0**exponent)


def test_scores_of_all_coarser_resolutions_are_added():
    network = FCN(num_classes=2, base_channels=2, depth=3).eval()
    constant_scores(network)
    torch.testing.assert_close(network(torch.randn(1, 3, 16, 16)), torch.full((1, 2, 16, 16), 111.0))


def test_depth_one_is_the_bottleneck_alone_upsampled_bilinearly():
    network = FCN(num_classes=2, base_channels=2, depth=1).eval()
    images = torch.randn(1, 3, 6, 8)
    bottleneck = network.classifiers[0](network.encoder(images)[-1])
    expected = nn.functional.interpolate(bottleneck, size=(6, 8), mode="bilinear")
    torch.testing.assert_close(network(images), expected)


def test_encoder_is_that_of_the_unet_and_nothing_else_is_large():
    fcn, unet = FCN(num_classes=3), UNet(num_classes=3)
    assert {k: v.shape for k, v in fcn.encoder.state_dict().items()} == {
        k: v.shape for k, v in unet.encoder.state_dict().items()
    }
    in_classifiers = sum(parameter.numel() for parameter in fcn.classifiers.parameters())
    assert in_classifiers == 3 * (128 + 256 + 256) + 3 * 3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_classes": 1}, r"num_classes=1 .* give 2 or more"),
        ({"base_channels": 0}, r"base_channels=0 .* give 1 or more"),
        ({"depth": -1}, r"depth=-1 .* give 1 or more"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        FCN(**{"num_classes": 3} | sizes)
