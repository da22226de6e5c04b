"""How a way to compute is chosen and used."""

import logging
import time
from copy import deepcopy
from functools import partial
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from petseg_lightning.compute import Compute, by_capability, choose, use
from petseg_lightning.data.targets import pet_target
from petseg_lightning.devices import has_units_for, lay_channels_last, usable_precision
from petseg_lightning.errors import InputError
from petseg_lightning.finders.batch_size import random_batch
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.models.unet import UNet
from petseg_lightning.module import SegmentationModule

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
AUTO = {"precision": "auto", "channels_last": "auto", "compile": False}
PLAIN, LAST = Compute(), Compute(channels_last=True)
BF16, BF16_LAST = Compute("bf16-mixed"), Compute("bf16-mixed", channels_last=True)
FP16_LAST = Compute("16-mixed", channels_last=True)
BATCH, SIZE = 6, 16


@pytest.fixture
def cpu(monkeypatch):
    """(names of instructions) -> a processor that has these."""

    def have(*names: str, architecture: str = "x86_64") -> None:
        units = {"architecture": architecture, "avx512_bf16": False, "amx_bf16": False, **dict.fromkeys(names, True)}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(units))

    return have


@pytest.fixture
def gpu(monkeypatch):
    """(whether it computes in bf16 by itself) -> a GPU that does, or emulates it as older ones do."""

    def have(bf16: bool) -> None:
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )

    return have


@pytest.fixture
def module():
    torch.manual_seed(0)
    network = UNet(3, base_channels=2, depth=1)
    return SegmentationModule(
        network,
        CrossEntropyLoss(),
        pet_target("trimap"),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    )


@pytest.fixture
def batch():
    return random_batch(BATCH, SIZE, num_parts=5)


def chosen(wanted=AUTO, device=CPU):
    return choose({**AUTO, **wanted}, device)


@pytest.mark.parametrize(
    ("names", "architecture", "way"),
    [
        ((), "x86_64", LAST),
        (("avx2", "avx512_f", "avx512_vnni", "f16c"), "x86_64", LAST),
        (("avx512_bf16",), "x86_64", BF16_LAST),
        (("amx_tile", "amx_bf16"), "x86_64", BF16_LAST),
        (("amx_tile", "amx_int8"), "x86_64", LAST),
        (("neon", "bf16", "sve", "sve_bf16"), "aarch64", LAST),
    ],
)
def test_a_cpu_takes_bf16_where_pytorch_trains_with_its_units(cpu, names, architecture, way):
    cpu(*names, architecture=architecture)
    assert chosen() == by_capability(CPU) == way
    assert not has_units_for(torch.float16, CPU)


@pytest.mark.parametrize(("bf16", "way"), [(True, BF16_LAST), (False, FP16_LAST)])
def test_a_gpu_takes_bf16_or_else_fp16(gpu, bf16, way):
    gpu(bf16)
    assert chosen(device=CUDA) == way
    assert chosen(device=torch.device("cuda", 1)) == way


def test_other_devices_are_computed_on_plainly():
    assert chosen(device=MPS) == PLAIN


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
@pytest.mark.parametrize("way", [PLAIN, BF16_LAST, FP16_LAST])
def test_a_way_that_is_configured_whole_is_used(cpu, gpu, device, way, caplog):
    cpu("avx512_bf16")
    gpu(True)
    caplog.set_level(logging.INFO)
    assert chosen(vars(way), device) == way
    assert caplog.messages == [f"Compute: {way}"]


@pytest.mark.parametrize(
    ("wanted", "way"),
    [
        ({"precision": "32-true"}, LAST),
        ({"precision": "16-mixed"}, FP16_LAST),
        ({"precision": "64-true"}, Compute("64-true", channels_last=True)),
        ({"channels_last": False}, BF16),
        ({"channels_last": False, "precision": "32-true"}, PLAIN),
    ],
)
def test_what_is_configured_stays_beside_what_is_chosen(cpu, wanted, way):
    cpu("avx512_bf16")
    assert chosen(wanted) == way


def test_no_clock_is_read_and_nothing_remembered(cpu, monkeypatch, tmp_path):
    cpu("avx512_bf16")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for clock in ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time"):
        monkeypatch.setattr(time, clock, lambda: pytest.fail("a stopwatch"))
    assert {chosen() for _ in range(3)} == {BF16_LAST}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "here"),
    [("32-true", "32-true"), ("bf16-mixed", "bf16-mixed"), ("16-mixed", "32-true"), ("64-true", "64-true")],
)
def test_a_model_is_used_in_its_precision_where_there_are_units_for_it(cpu, gpu, precision, here):
    cpu("avx512_bf16")
    assert usable_precision(precision, CPU) == here
    cpu()
    assert usable_precision(precision, CPU) == here.replace("bf16-mixed", "32-true")
    gpu(True)
    assert usable_precision(precision, CUDA) == precision
    gpu(False)
    assert usable_precision(precision, CUDA) == precision.replace("bf16-mixed", "32-true")


class TestCompile:
    def test_is_used_where_it_is_asked_for(self, cpu, monkeypatch):
        cpu()
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        assert chosen({"compile": True}) == Compute(channels_last=True, compile=True)

    @pytest.mark.parametrize("wanted", [{}, vars(LAST)])
    def test_asked_for_without_a_compiler_is_an_error_of_one_line(self, monkeypatch, wanted):
        def broken(function, **_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler\nmany\nlines")

        monkeypatch.setattr(torch, "compile", broken)
        with pytest.raises(InputError) as caught:
            chosen({**wanted, "compile": True})
        assert str(caught.value) == (
            "compute.compile=true: torch.compile does not work here (InvalidCxxCompiler: No working C++ compiler); "
            "install a C++ compiler, or leave it out with compute.compile=false"
        )


@pytest.mark.parametrize(("way", "tolerance"), [(PLAIN, 1e-6), (LAST, 1e-5), (BF16_LAST, 0.03)])
def test_steps_of_a_way_are_those_of_a_plain_loop(module, batch, way, tolerance):
    network = deepcopy(module.network)
    images = (batch["image"].float() / 255 - 0.5) / 0.25
    masks = torch.tensor(module.target.part_to_class)[batch["parts"].long()]
    use(module, way, BATCH, tf32=False)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9) for each in (network, module.network)]
    for _ in range(4):
        expected = F.cross_entropy(network(images), masks)
        with torch.autocast("cpu", torch.bfloat16, enabled=way.precision == "bf16-mixed"):
            loss = module.training_loss(batch)
        for each, optimizer in zip((expected, loss), optimizers, strict=True):
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), abs=tolerance)


@pytest.mark.parametrize("tf32", [True, False])
def test_use_prepares_module_and_libraries(module, monkeypatch, tf32):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    before = torch.get_float32_matmul_precision()
    compiled = []
    monkeypatch.setattr(module, "compile_training", compiled.append)
    try:
        use(module, Compute(channels_last=True, compile=True), 7, tf32=tf32)
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert compiled == [7]
    weights = [p for p in module.network.parameters() if p.ndim == 4]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_compiled_training_has_the_loss_of_the_eager_one(module, batch):
    """With the real compiler, for which a small network is long enough."""
    module.network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    eager = deepcopy(module)
    use(module, chosen({"precision": "32-true", "compile": True}), BATCH, tf32=False)
    for _ in range(3):
        losses = [each.training_loss(batch) for each in (eager, module)]
        assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-4)
        for each, loss in zip((eager, module), losses, strict=True):
            each.zero_grad()
            loss.backward()
            torch.optim.SGD(each.parameters(), lr=0.1).step()


def test_only_training_steps_on_whole_batches_are_compiled(module, batch, monkeypatch):
    used = []

    def compile(function, **options):
        assert options == {"dynamic": False}

        def compiled(images):
            used.append(len(images))
            return function(images)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    keys = module.state_dict().keys()
    module.compile_training(BATCH)
    part = {key: value[: BATCH - 1] for key, value in batch.items()}
    module.training_loss(part)
    module(batch["image"])
    module.eval()
    module.test_step(batch, 0)
    assert used == []
    module.train()
    module.training_loss(batch)
    assert used == [BATCH]
    assert module.state_dict().keys() == keys


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (PLAIN, "32-true, channels first, eager"),
        (Compute("bf16-mixed", channels_last=True, compile=True), "bf16-mixed, channels last, compiled"),
    ],
)
def test_a_way_in_words(way, text):
    assert str(way) == text


def test_channels_last_leaves_narrow_normalization_with_channels_first_and_the_same_result():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    seen = []
    for layer in (network[0], network[2]):
        layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].is_contiguous(), output)))
    images = torch.randn(2, 3, 5, 7)
    expected = network(images)
    seen.clear()
    lay_channels_last(network)
    output = network(images.to(memory_format=torch.channels_last))
    assert [channels_first for channels_first, _ in seen] == [True, False]
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
