"""How a way to compute is chosen, remembered and used; with given rates, except where a test says otherwise."""

import json
import logging
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from petseg_lightning import compute
from petseg_lightning.compute import WORTH_COMPILING, WORTH_MEASURING, Compute, choose, random_batch, training_step, use
from petseg_lightning.data.targets import pet_target
from petseg_lightning.devices import lay_channels_last
from petseg_lightning.errors import InputError
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.models.unet import UNet
from petseg_lightning.module import SegmentationModule

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
AUTO = {"precision": "auto", "channels_last": "auto", "compile": "auto"}
PLAIN, LAST = Compute(), Compute(channels_last=True)
BF16, BF16_LAST = Compute("bf16-mixed"), Compute("bf16-mixed", channels_last=True)
BATCH, SIZE = 6, 16


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "petseg_lightning" / "compute.json"


@pytest.fixture(autouse=True)
def a_cpu_with_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


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


@pytest.fixture
def rates(monkeypatch):
    """(pictures per second of each way) -> the ways that were asked for, call by call. 0 as a rate: it fails."""

    def fake(table: dict[Compute, float]) -> list[list[Compute]]:
        calls: list[list[Compute]] = []

        def measured(ways, module, batch, device, rounds=3):
            calls.append(list(ways))
            if any(table[way] == 0 for way in ways):
                raise RuntimeError("no compiler\nfor many reasons")
            return {way: table[way] for way in ways}

        monkeypatch.setattr(compute, "_rates", measured)
        return calls

    return fake


@pytest.fixture
def never_measured(rates):
    """No way may be measured."""
    calls = rates({})
    yield
    assert calls == []


def chosen(module, batch, wanted=AUTO, device=CPU, steps=WORTH_MEASURING, **options):
    return choose({**AUTO, **wanted}, module, batch, device, steps=steps, **options)


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize("way", [PLAIN, BF16_LAST, Compute("16-mixed", channels_last=True)])
def test_a_way_that_is_configured_whole_is_used(module, batch, way, caplog):
    caplog.set_level(logging.INFO)
    assert chosen(module, batch, vars(way), steps=10**6) == way
    assert caplog.messages == [f"Compute: {way} (as configured)"]


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true", "transformer-engine"])
def test_a_precision_that_autocast_does_not_do_is_used_as_it_is(module, batch, precision):
    assert chosen(module, batch, {"precision": precision}, steps=10**6) == Compute(precision)


@pytest.mark.usefixtures("never_measured")
def test_a_training_too_short_is_not_measured(module, batch, caplog):
    caplog.set_level(logging.INFO)
    assert chosen(module, batch, steps=WORTH_MEASURING - 1) == PLAIN
    assert "a training of 199 steps is too short" in caplog.text
    assert chosen(module, batch, {"channels_last": True}, steps=1) == LAST
    assert chosen(module, batch, {"precision": "bf16-mixed"}, steps=1) == BF16


@pytest.mark.parametrize(
    ("table", "best", "gain"),
    [
        ({PLAIN: 100, LAST: 120, BF16: 90, BF16_LAST: 300}, BF16_LAST, 3.0),
        ({PLAIN: 100, LAST: 120, BF16: 90, BF16_LAST: 110}, LAST, 1.2),
        ({PLAIN: 100, LAST: 105, BF16: 250, BF16_LAST: 240}, BF16, 2.5),
        ({PLAIN: 100, LAST: 109, BF16: 109.9, BF16_LAST: 50}, PLAIN, 1.0),
        ({PLAIN: 100, LAST: 90, BF16: 80, BF16_LAST: 70}, PLAIN, 1.0),
    ],
)
def test_the_fastest_way_wins_where_its_gain_is_clear(module, batch, rates, caplog, table, best, gain):
    caplog.set_level(logging.INFO)
    calls = rates(table)
    assert chosen(module, batch) == best
    assert set(calls[0]) == {PLAIN, LAST, BF16, BF16_LAST}
    assert len(calls) == 1  # 1,200 pictures are no reason to compile
    reason = "nothing else is clearly faster" if best == PLAIN else f"{gain:.2f} times {PLAIN}"
    said = f"Compute: {best} (measured now: {reason})"
    assert caplog.messages[0].startswith("Measuring what is fastest here")
    assert caplog.messages[1:] == [said]


@pytest.mark.parametrize(
    ("wanted", "ways"),
    [
        ({"precision": "32-true"}, [PLAIN, LAST]),
        ({"precision": "16-mixed"}, [Compute("16-mixed"), Compute("16-mixed", channels_last=True)]),
        ({"channels_last": True}, [LAST, BF16_LAST]),
        ({"precision": "bf16-mixed", "channels_last": True}, [BF16_LAST]),
    ],
)
def test_only_what_is_not_fixed_is_measured(module, batch, rates, wanted, ways):
    calls = rates({way: 100 + 100 * number for number, way in enumerate(ways)})
    assert chosen(module, batch, wanted) == ways[-1]
    assert calls == [ways]


@pytest.mark.parametrize(("machine", "ways"), [("x86_64", [PLAIN, LAST]), ("arm64", [PLAIN, LAST, BF16, BF16_LAST])])
def test_a_cpu_that_would_emulate_bf16_is_spared_it(module, batch, rates, monkeypatch, machine, ways):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr("platform.machine", lambda: machine)
    calls = rates(dict.fromkeys(ways, 100))
    assert chosen(module, batch) == PLAIN
    assert calls == [ways]


class TestCompile:
    LONG = 1200  # steps of 6 pictures: at 10 pictures per second more than 600 seconds

    @pytest.fixture(autouse=True)
    def about_ten_pictures_per_second(self):
        assert self.LONG * BATCH / 10 > WORTH_COMPILING > 0.5 * self.LONG * BATCH / 10

    def test_is_tried_for_long_trainings_only(self, module, batch, rates):
        table = {PLAIN: 10, LAST: 10, BF16: 10, BF16_LAST: 10, Compute(compile=True): 25}
        calls = rates(table)
        assert chosen(module, batch, steps=self.LONG // 2) == PLAIN
        assert len(calls) == 1
        assert chosen(module, batch, steps=self.LONG) == Compute(compile=True)
        assert calls[2:] == [[PLAIN, Compute(compile=True)]]

    def test_a_fast_way_makes_a_training_too_short_for_it(self, module, batch, rates):
        calls = rates({PLAIN: 10, LAST: 30, BF16: 10, BF16_LAST: 10})
        assert chosen(module, batch, steps=self.LONG) == LAST
        assert len(calls) == 1

    def test_gains_multiply(self, module, batch, rates, caplog):
        caplog.set_level(logging.INFO)
        fast = Compute(channels_last=True, compile=True)
        rates({PLAIN: 5, LAST: 10, BF16: 5, BF16_LAST: 5, fast: 15})
        assert chosen(module, batch, steps=self.LONG) == fast
        assert f"Compute: {fast} (measured now: 3.00 times {PLAIN})" in caplog.text

    def test_is_left_out_where_it_does_not_pay(self, module, batch, rates):
        rates({PLAIN: 10, LAST: 9, BF16: 9, BF16_LAST: 9, Compute(compile=True): 10.9})
        assert chosen(module, batch, steps=self.LONG) == PLAIN

    def test_is_left_out_where_it_fails(self, module, batch, rates, caplog):
        caplog.set_level(logging.INFO)
        rates({PLAIN: 10, LAST: 9, BF16: 9, BF16_LAST: 9, Compute(compile=True): 0})
        assert chosen(module, batch, steps=self.LONG) == PLAIN
        assert "torch.compile does not work here: no compiler" in caplog.messages

    def test_is_not_tried_where_it_is_off(self, module, batch, rates):
        calls = rates({PLAIN: 10, LAST: 9, BF16: 9, BF16_LAST: 9})
        assert chosen(module, batch, {"compile": False}, steps=100 * self.LONG) == PLAIN
        assert len(calls) == 1

    def test_is_used_where_it_is_on(self, module, batch, rates, monkeypatch):
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        calls = rates({PLAIN: 10, LAST: 20, BF16: 9, BF16_LAST: 9})
        assert chosen(module, batch, {"compile": True}) == Compute(channels_last=True, compile=True)
        assert len(calls) == 1
        assert chosen(module, batch, {"compile": True}, steps=1) == Compute(compile=True)

    @pytest.mark.parametrize("wanted", [{}, vars(LAST)])
    def test_asked_for_without_a_compiler_is_an_error_of_one_line(self, module, batch, monkeypatch, wanted):
        def broken(function, **_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler\nmany\nlines")

        monkeypatch.setattr(torch, "compile", broken)
        with pytest.raises(InputError) as caught:
            chosen(module, batch, {**wanted, "compile": True})
        assert str(caught.value) == (
            "compute.compile=true: torch.compile does not work here (InvalidCxxCompiler: No working C++ compiler); "
            "install a C++ compiler, or leave it out with compute.compile=false"
        )


@pytest.mark.usefixtures("never_measured")
class TestSeveralProcesses:
    def test_on_cpus_keep_the_precision(self, module, batch):
        assert chosen(module, batch, steps=10**6, processes=2) == LAST

    @pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
    def test_on_gpus_choose_by_capability(self, module, batch, monkeypatch, has_bf16, precision):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
        assert chosen(module, batch, device=CUDA, processes=2) == Compute(precision, channels_last=True)

    def test_use_what_is_fixed(self, module, batch):
        wanted = {"precision": "bf16-mixed", "channels_last": False}
        assert chosen(module, batch, wanted, processes=4) == BF16

    def test_choose_the_same_whatever_their_length(self, module, batch):
        assert {chosen(module, batch, steps=steps, processes=2) for steps in (1, 10**3, 10**7)} == {LAST}


class TestMemory:
    @pytest.fixture
    def calls(self, rates):
        return rates({PLAIN: 100, LAST: 120, BF16: 300, BF16_LAST: 110})

    def test_a_second_training_measures_nothing(self, module, batch, calls, store, caplog):
        caplog.set_level(logging.INFO)
        assert [chosen(module, batch) for _ in range(3)] == [BF16] * 3
        assert len(calls) == 1
        assert caplog.messages[2:] == [f"Compute: {BF16} (measured earlier: 3.00 times {PLAIN})"] * 2
        (known,) = json.loads(store.read_text()).values()
        assert known == {"chosen": vars(BF16), "gain": 3.0}

    @pytest.mark.parametrize("what", ["picture size", "batch size", "network", "loss", "fixed", "threads", "device"])
    def test_another_situation_is_measured_anew(self, module, batch, calls, store, monkeypatch, what):
        chosen(module, batch)
        wanted = {}
        if what == "picture size":
            batch = random_batch(BATCH, 2 * SIZE, 5)
        elif what == "batch size":
            batch = random_batch(BATCH + 1, SIZE, 5)
        elif what == "network":
            module.network = UNet(3, base_channels=4, depth=1)
        elif what == "loss":
            module.loss = nn.NLLLoss()
        elif what == "fixed":
            wanted = {"compile": False}
        elif what == "threads":
            monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
        else:
            monkeypatch.setattr("petseg_lightning.devices.processor", lambda: "another one")
        chosen(module, batch, wanted)
        assert len(calls) == 2
        assert len(json.loads(store.read_text())) == 2

    def test_a_much_longer_training_is_measured_anew(self, module, batch, calls):
        for steps in (WORTH_MEASURING, 2 * WORTH_MEASURING, 20 * WORTH_MEASURING):
            chosen(module, batch, steps=steps)
        assert len(calls) == 3

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"[1]",
            b"null",
            b"\xff\xfe",
            b'{"KEY": null}',
            b'{"KEY": {}}',
            b'{"KEY": {"chosen": {"speed": 9}, "gain": 2}}',
            b'{"KEY": {"chosen": {}, "gain": 0}}',
            b'{"KEY": {"chosen": {}, "gain": "much"}}',
            b'{"KEY": {"chosen": [], "gain": 2}}',
        ],
    )
    def test_a_broken_store_is_measured_anew_and_mended(self, module, batch, calls, store, content):
        chosen(module, batch)
        (key,) = json.loads(store.read_text())
        store.write_bytes(content.replace(b"KEY", key.encode()))
        assert chosen(module, batch) == BF16
        assert len(calls) == 2
        assert chosen(module, batch) == BF16
        assert len(calls) == 2

    def test_what_others_measured_is_kept(self, module, batch, calls, store):
        store.parent.mkdir()
        store.write_text('{"another": {"chosen": {}, "gain": 1.0}}')
        chosen(module, batch)
        assert len(json.loads(store.read_text())) == 2
        assert json.loads(store.read_text())["another"] == {"chosen": {}, "gain": 1.0}

    def test_a_store_that_cannot_be_written_means_measuring_again(self, module, batch, calls, monkeypatch, tmp_path):
        file = tmp_path / "file"
        file.touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(file))
        assert [chosen(module, batch) for _ in range(2)] == [BF16] * 2
        assert len(calls) == 2
        assert file.read_bytes() == b""

    def test_a_user_without_a_home_measures_again(self, module, batch, calls, monkeypatch):
        def homeless():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", homeless)
        assert [chosen(module, batch) for _ in range(2)] == [BF16] * 2
        assert len(calls) == 2


def test_measuring_changes_neither_the_module_nor_the_random_numbers(module, batch):
    """With real measurements of a network that has batch statistics and draws random numbers."""
    module.network = nn.Sequential(module.network, nn.Dropout(0.5))
    before, state = deepcopy(module.state_dict()), torch.get_rng_state()
    strides = {name: value.stride() for name, value in module.named_parameters()}
    precision = torch.get_float32_matmul_precision()
    way = chosen(module, batch)
    assert way in (PLAIN, LAST, BF16, BF16_LAST)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {name: value.stride() for name, value in module.named_parameters()} == strides
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training
    assert torch.get_float32_matmul_precision() == precision


def test_rates_are_pictures_per_second_of_the_best_round_without_the_warm_up(module, batch, monkeypatch):
    """By a clock that the steps move: the first way takes 1, then 3, 2, 4 seconds, the other one 9, 6, 6, 6."""
    now, durations = [0.0], {PLAIN: iter([1, 3, 2, 4]), LAST: iter([9, 6, 6, 6])}
    order = []

    def step_of(module, way, batch, device):
        def step():
            order.append(way)
            now[0] += next(durations[way])

        return step

    monkeypatch.setattr(compute, "training_step", step_of)
    monkeypatch.setattr(compute, "perf_counter", lambda: now[0])
    assert compute._rates([PLAIN, LAST], module, batch, CPU, rounds=3) == {PLAIN: BATCH / 2, LAST: BATCH / 6}
    assert order == [PLAIN, LAST] * 4


@pytest.mark.parametrize(("way", "tolerance"), [(PLAIN, 1e-6), (LAST, 1e-5), (BF16_LAST, 0.03)])
def test_a_measured_step_is_a_step_of_the_training(module, batch, way, tolerance):
    """Against a loop of plain PyTorch over the same batch."""
    network = deepcopy(module.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = (batch["image"].float() / 255 - 0.5) / 0.25
    masks = torch.tensor(module.target.part_to_class)[batch["parts"].long()]
    step = training_step(module, way, batch, CPU)
    for _ in range(4):
        loss = F.cross_entropy(network(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step().item() == pytest.approx(loss.item(), abs=tolerance)


def test_a_random_batch_has_the_types_of_a_real_one():
    batch = random_batch(4, 16, num_parts=5)
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 3, 16, 16), torch.uint8)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert (batch["parts"].shape, batch["parts"].dtype) == ((4, 16, 16), torch.uint8)
    assert set(batch["parts"].unique().tolist()) == set(range(5))
    assert batch["index"].tolist() == [0, 1, 2, 3]


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
    compute._require_compiler(CPU)
    eager, compiled = (training_step(module, way, batch, CPU) for way in (PLAIN, Compute(compile=True)))
    for _ in range(3):
        assert compiled().item() == pytest.approx(eager().item(), abs=1e-4)


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
