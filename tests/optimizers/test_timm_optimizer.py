import io
import re

import pytest
import torch
import torch.nn.functional as F
from timm import create_model
from timm.models import group_parameters
from timm.optim import list_optimizers, param_groups_weight_decay
from torch import nn

from petseg_lightning.errors import InputError
from petseg_lightning.models.smp import SMP
from petseg_lightning.models.unet import UNet
from petseg_lightning.optimizers.layers import distance_from_decoder
from petseg_lightning.optimizers.timm_optimizer import NOT_HERE, TimmOptimizer

NAMES = [*list_optimizers(exclude_filters=NOT_HERE), "lookahead_radam"]
SLOW = {"adadelta": 1.0, "lars": 10.0, "nlars": 3.0, "radam": 0.05, "radamw": 0.05, "radamlegacy": 0.05}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))


def steps(net, optimizer, number):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(number):
        loss = F.cross_entropy(net(images), images.argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns_and_goes_on_from_a_plain_checkpoint(name):
    build = TimmOptimizer(name, lr=SLOW.get(name, 0.01), weight_decay=0.01)
    net = network()
    optimizer = build(net.named_parameters())
    losses = steps(net, optimizer, 10)
    file = io.BytesIO()
    torch.save((net.state_dict(), optimizer.state_dict()), file)
    losses += steps(net, optimizer, 10)
    assert losses[-1] < 0.98 * losses[0]
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other = network()
    resumed = build(other.named_parameters())
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    steps(other, resumed, 10)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in other.state_dict().items())


def test_a_name_that_timm_does_not_have_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"^optimizer\.opt=lamn is none of the \d+ of timm .*: lamb") as caught:
        TimmOptimizer("lamn", 1e-3)
    assert "\n" not in str(caught.value)
    for name in ("fusedadam", "kron", "lookahead_lamn"):
        with pytest.raises(InputError):
            TimmOptimizer(name, 1e-3)


def test_options_are_the_optimizers_or_refused():
    optimizer = TimmOptimizer("adamw", 1e-3, betas=[0.5, 0.6])(network().parameters())
    assert tuple(optimizer.defaults["betas"]) == (0.5, 0.6)
    with pytest.raises(InputError, match=r"^optimizer\.opt=lion does not take optimizer\.nonsense as given"):
        TimmOptimizer("lion", 1e-3, nonsense=1)(network().parameters())


def test_weight_decay_is_of_kernels_as_timm_has_it():
    net = network()
    own = TimmOptimizer("adamw", 1e-3, weight_decay=0.3)(net.named_parameters()).param_groups
    expected = {id(p): group["weight_decay"] for group in param_groups_weight_decay(net, 0.3) for p in group["params"]}
    assert {id(p): group["weight_decay"] for group in own for p in group["params"]} == expected
    (group,) = TimmOptimizer("adamw", 1e-3, weight_decay=0.3, decay_norm_and_bias=True)(net.parameters()).param_groups
    assert group["weight_decay"] == 0.3


def test_layers_of_a_unet_are_its_depth():
    net = UNet(3, base_channels=2, depth=2)
    distances = distance_from_decoder(name for name, _ in net.named_parameters())
    assert {distances[n] for n in distances if n.startswith("encoder.stages.0.")} == {3}
    assert {distances[n] for n in distances if n.startswith("encoder.stages.1.")} == {2}
    assert {distances[n] for n in distances if n.startswith("encoder.bottleneck.")} == {1}
    assert {distances[n] for n in distances if not n.startswith("encoder.")} == {0}


@pytest.mark.parametrize("encoder", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_layers_of_an_encoder_are_those_of_timm(encoder):
    """The features of timm's models have no `group_matcher`, but the whole models do."""
    whole = create_model(encoder)
    layers = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    net = SMP(3, arch="Unet", encoder=encoder)
    own = distance_from_decoder(name for name, _ in net.named_parameters())
    prefix = "model.encoder.model."
    found = {name.removeprefix(prefix): distance for name, distance in own.items() if name.startswith(prefix)}
    assert len(found) > 50
    assert len(set(found.values())) == max(found.values())
    for name, distance in found.items():
        assert max(found.values()) - distance == layers[name], name


def test_the_blocks_of_a_transformer_are_its_layers():
    whole = create_model("vit_tiny_patch16_224", depth=3)
    layers = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    names = [name for name, _ in whole.named_parameters() if not re.match("norm|head|fc_norm", name)]
    own = distance_from_decoder(f"encoder.{name}" for name in names)
    assert [4 - own[f"encoder.{name}"] for name in names] == [layers[name] for name in names]


def test_rates_of_layers_against_those_of_a_hand(tiny_parts):
    """Depth 2: stages 0 and 1, the bottleneck, then the decoder."""
    _, _, module = tiny_parts("optimizer=timm", "optimizer.layer_decay=0.5", "optimizer.lr=0.8")
    optimizer = module.configure_optimizers()
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    expected = {"encoder.stages.0": 0.1, "encoder.stages.1": 0.2, "encoder.bottleneck": 0.4, "decoder": 0.8}
    assert rates.keys() == dict(module.named_parameters()).keys()
    for name, rate in rates.items():
        part = next((part for part in expected if name.startswith(f"network.{part}.")), "decoder")
        assert rate == pytest.approx(expected[part]), name
    assert all("lr_scale" not in group for group in optimizer.param_groups)


def test_rates_of_layers_multiply_with_that_of_the_encoder_and_frozen_layers_have_none(tiny_parts):
    smp = ("model=smp", "model.encoder=resnet18", "optimizer=timm", "optimizer.lr=1")
    _, _, module = tiny_parts(*smp, "model.encoder_lr_scale=0.1", "optimizer.layer_decay=0.5")
    rates = {n: g["lr"] for g in module.configure_optimizers().param_groups for n in g["param_names"]}
    encoder = "network.model.encoder.model."
    assert rates[f"{encoder}layer4.1.conv1.weight"] == pytest.approx(0.1 * 0.5)
    assert rates[f"{encoder}layer4.0.conv1.weight"] == pytest.approx(0.1 * 0.25)
    assert rates[f"{encoder}conv1.weight"] == pytest.approx(0.1 * 0.5**9)
    assert {rate for name, rate in rates.items() if ".encoder." not in name} == {1.0}
    _, _, module = tiny_parts(*smp, "model.freeze_encoder=true", "optimizer.layer_decay=0.5")
    names = [name for group in module.configure_optimizers().param_groups for name in group["param_names"]]
    assert names
    assert not any(".encoder." in name for name in names)
