import numpy as np
import pytest
import torch

from petseg_lightning.errors import InputError
from petseg_lightning.models.blocks import Encoder, pad_and_crop, require_at_least


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 16), (17, 23)])
def test_network_sees_edges_replicated_to_the_next_multiple(size):
    images = torch.randn(2, 3, *size)
    bottom, right = (-np.array(size)) % 8
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")
    seen = []

    def network(padded):
        seen.append(padded)
        return padded + 1

    output = pad_and_crop(network, images, 8)
    np.testing.assert_array_equal(seen[0].numpy(), expected)
    assert torch.equal(output, images + 1)


def test_multiples_go_through_unpadded():
    images = torch.randn(1, 3, 16, 24)
    assert torch.equal(pad_and_crop(torch.sin, images, 8), images.sin())


def test_encoder_gives_one_feature_map_per_resolution():
    features = Encoder(base_channels=2, depth=3)(torch.randn(1, 3, 16, 32))
    assert [tuple(feature.shape) for feature in features] == [
        (1, 2, 16, 32),
        (1, 4, 8, 16),
        (1, 8, 4, 8),
        (1, 8, 2, 4),
    ]


@pytest.mark.parametrize("value", [0, -1, 2.5, None])
def test_size_below_its_minimum_names_value_rule_and_fix(value):
    with pytest.raises(InputError, match=rf"^base_channels={value} .*integer; give 1 or more$"):
        require_at_least(1, depth=3, base_channels=value)
