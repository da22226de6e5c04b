import pytest
import torch
from torch import nn

from petseg_lightning.errors import InputError
from petseg_lightning.models.unet import UNet


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def conv_block(in_channels: int, out_channels: int) -> int:
    """Parameters of two biased 3x3 convolutions with batch normalization."""
    return sum(9 * i * out_channels + out_channels + 2 * out_channels for i in (in_channels, out_channels))


def test_paper_has_its_golden_number_of_parameters():
    assert num_parameters(UNet(num_classes=3)) == 3_254_703


def test_paper_has_the_stages_of_section_2_1():
    encoder = conv_block(3, 64) + conv_block(64, 128) + conv_block(128, 256) + conv_block(256, 256)
    decoder = conv_block(256 + 256, 128) + conv_block(128 + 128, 64) + conv_block(64 + 64, 3)
    assert num_parameters(UNet(num_classes=3)) == encoder + decoder + (3 * 3 + 3)


def test_two_poolings_and_a_full_width_last_stage():
    encoder = conv_block(3, 8) + conv_block(8, 16) + conv_block(16, 16)
    decoder = conv_block(16 + 16, 8) + conv_block(8 + 8, 8)
    network = UNet(num_classes=5, base_channels=8, depth=2, last_channels=None)
    assert num_parameters(network) == encoder + decoder + (8 * 5 + 5)


def golden_network(**changes) -> UNet:
    """Weights and statistics from a formula, so that the golden logits need no random generator."""
    network = UNet(**{"num_classes": 3, "base_channels": 2, "depth": 2} | changes).eval()
    for seed, tensor in enumerate(network.state_dict().values()):
        values = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 1.7 + seed).view(tensor.shape)
        tensor.copy_(values / 3 if tensor.dim() == 4 else values.abs())  # variances must be positive
    return network


def golden_images() -> torch.Tensor:
    return torch.cos(torch.arange(2 * 3 * 6 * 7, dtype=torch.float32)).view(2, 3, 6, 7)


def reference_logits(network: UNet, images: torch.Tensor) -> torch.Tensor:
    """The paper's layers one by one, from the state dict, for sides that need no padding."""
    weights = network.state_dict()
    depth = len(network.decoder)

    def block(name: str, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in ((0, 1), (3, 4)):
            x = nn.functional.conv2d(x, weights[f"{name}.{conv}.weight"], weights[f"{name}.{conv}.bias"], padding=1)
            mean, var, gain, bias = (
                weights[f"{name}.{norm}.{key}"].view(-1, 1, 1)
                for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (var + 1e-5).sqrt() * gain + bias).clamp(min=0)
        return x

    skips, x = [], images
    for level in range(depth):
        x = block(f"encoder.stages.{level}", x)
        skips.append(x)
        x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    x = block("encoder.bottleneck", x)
    for index in range(depth):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = block(f"decoder.{index}", torch.cat([x, skips[depth - 1 - index]], dim=1))
    return nn.functional.conv2d(x, weights["classifier.weight"], weights["classifier.bias"])


def test_logits_are_those_of_the_layers_one_by_one():
    network, images = golden_network(), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(network(images), reference_logits(network, images), rtol=1e-4, atol=1e-4)


def test_golden_logits():
    logits = golden_network()(golden_images())[1, :, 3, 5]
    torch.testing.assert_close(logits, torch.tensor([0.952003, 0.734505, 1.070521]), rtol=1e-4, atol=1e-5)


def logits_of_a_constant_bottleneck(network: UNet) -> torch.Tensor:
    with torch.no_grad():
        for parameter in network.encoder.bottleneck.parameters():
            parameter.zero_()
    return network(torch.randn(2, 3, 8, 8))


def test_without_skips_the_decoder_knows_the_bottleneck_only():
    network = golden_network(skip_connections=False)
    assert num_parameters(network) < num_parameters(golden_network())
    first, second = logits_of_a_constant_bottleneck(network)
    assert torch.equal(first, second)


def test_with_skips_the_encoder_reaches_the_decoder_past_the_bottleneck():
    first, second = logits_of_a_constant_bottleneck(golden_network())
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_classes": 1}, r"num_classes=1 .* give 2 or more"),
        ({"base_channels": 0}, r"base_channels=0 .* give 1 or more"),
        ({"depth": 0}, r"depth=0 .* give 1 or more"),
        ({"last_channels": 0}, r"last_channels=0 .* give 1 or more"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        UNet(**{"num_classes": 3} | sizes)
