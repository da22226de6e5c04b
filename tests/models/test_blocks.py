import numpy as np
import pytest
import torch

from petseg_lightning.errors import InputError
from petseg_lightning.models.blocks import Encoder, concatenate, pad_and_crop, require_at_least


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


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_concatenation_and_its_gradients_are_those_of_torch(memory_format):
    parts = [torch.randn(2, channels, 4, 6).to(memory_format=memory_format).requires_grad_() for channels in (3, 5)]
    joined, expected = concatenate(*parts), torch.cat(parts, dim=1)
    assert torch.equal(joined, expected)
    gradient = torch.randn_like(joined)
    mine, theirs = (torch.autograd.grad(output, parts, gradient) for output in (joined, expected))
    assert all(map(torch.equal, mine, theirs))


def test_gradients_of_a_concatenation_are_dense_where_channels_are_last():
    """Those of torch.cat are strided views, which a CPU is slow with."""
    images = torch.randn(2, 3, 4, 6).to(memory_format=torch.channels_last).requires_grad_()
    joined = concatenate(images, images)
    strides = []
    joined.grad_fn.register_hook(lambda inputs, _: strides.extend(gradient.stride() for gradient in inputs))
    joined.backward(torch.randn_like(joined))
    assert strides == [images.stride()] * 2


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
