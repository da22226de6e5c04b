from copy import deepcopy

import pytest
import torch
from torch import nn

from petseg_lightning.errors import InputError
from petseg_lightning.finders import batch_size
from petseg_lightning.finders.batch_size import BatchSizeFinder, free_memory, random_batch, saved_bytes, training_step
from petseg_lightning.training import find_values

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def module(tiny_parts):
    return tiny_parts()[2]


def fake_steps(monkeypatch, largest):
    """Steps that keep 1000 bytes a picture, and have not enough memory for more than the largest batch."""
    tried = []

    def step(module, batch, device):
        size = len(batch["image"])
        tried.append(size)
        if size > largest:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        weights = torch.ones(size * 250, requires_grad=True)
        return (weights * weights.detach().clone()).sum()

    monkeypatch.setattr(batch_size, "training_step", step)
    return tried


@pytest.mark.parametrize(
    ("largest", "pictures", "highest", "expected"),
    [(20, 1000, 256, 16), (16, 1000, 256, 16), (1000, 100, 256, 64), (1000, 1000, 32, 32), (1000, 1000, 50, 32)],
)
def test_the_largest_power_of_two_that_works_and_was_tried(monkeypatch, module, largest, pictures, highest, expected):
    tried = fake_steps(monkeypatch, largest)
    assert BatchSizeFinder(highest, 1.0).find(module, 8, pictures, CPU) == expected
    assert expected in tried
    assert max(tried) <= 2 * expected


@pytest.mark.parametrize(("free", "share", "expected"), [(64_000, 1.0, 32), (64_000, 0.5, 16), (63_000, 1.0, 16)])
def test_memory_is_never_asked_for_that_is_not_there(monkeypatch, module, free, share, expected):
    """A picture needs 2000 bytes: twice those kept for the backward pass."""
    tried = fake_steps(monkeypatch, 10_000)
    monkeypatch.setattr(batch_size, "free_memory", lambda _: free)
    assert BatchSizeFinder(256, share).find(module, 8, 1000, CPU) == expected
    assert max(tried) == expected


def test_too_little_for_any_batch_is_said_so(monkeypatch, module):
    fake_steps(monkeypatch, 1)
    with pytest.raises(InputError, match=r"^find=batch_size: a batch of 2 pictures of 8 pixels does not fit .*"):
        BatchSizeFinder(256, 1.0).find(module, 8, 1000, CPU)


def test_other_errors_are_not_taken_for_too_little_memory(monkeypatch, module):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(batch_size, "training_step", broken)
    with pytest.raises(RuntimeError, match="something else"):
        BatchSizeFinder(256, 1.0).find(module, 8, 1000, CPU)


def test_a_random_batch_has_the_types_of_a_real_one():
    batch = random_batch(4, 16, num_parts=5)
    assert (batch["image"].shape, batch["image"].dtype) == ((4, 3, 16, 16), torch.uint8)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert (batch["parts"].shape, batch["parts"].dtype) == ((4, 16, 16), torch.uint8)
    assert set(batch["parts"].unique().tolist()) == set(range(5))
    assert batch["index"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("optimizer", ["adam", "schedule_free_adamw"])
def test_a_tried_step_leaves_the_module_as_it_was(tiny_parts, optimizer):
    module = tiny_parts(f"optimizer={optimizer}")[2]
    before = deepcopy(module.state_dict())
    loss = training_step(module, random_batch(2, 16, 5), CPU)
    assert torch.equal(loss, module.training_loss(random_batch(2, 16, 5)))
    module.load_state_dict(before)  # a loss changes the batch statistics
    assert torch.equal(loss, training_step(module, random_batch(2, 16, 5), CPU))


def test_bytes_that_a_backward_pass_keeps():
    """Of x -> exp(x) -> relu(exp(x)), the two results, each once; of the sum nothing."""
    x = torch.zeros(1000, requires_grad=True)
    assert saved_bytes(lambda: nn.functional.relu(x.exp()).sum()) == 2 * 4000


def test_some_memory_is_free():
    assert free_memory(CPU) > 2**20


def test_the_data_and_the_config_have_what_was_found_and_weights_are_as_before(tiny_parts, tmp_path):
    cfg, datamodule, module = tiny_parts("find=batch_size", "trainer=cpu", folder=tmp_path)
    before, state = deepcopy(module.state_dict()), torch.get_rng_state()
    assert find_values(cfg, module, datamodule) == {"data.batch_size": 16}  # of 16 training pictures
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert cfg.data.batch_size == module.description["data"]["batch_size"] == 16
    assert len(next(iter(datamodule.train_dataloader()))["index"]) == 16
    assert {path.name for path in tmp_path.iterdir()} == {"found.json"}
