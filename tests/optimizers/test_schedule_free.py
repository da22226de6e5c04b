"""Schedule-free optimizers, against the library's own loop in plain torch."""

import copy

import pytest
import torch
from lightning import Callback
from schedulefree import AdamWScheduleFree
from torch.optim.swa_utils import update_bn

from petseg_lightning.callbacks.recent_pictures import measure_statistics
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.models.smp import SMP

OWN = ("optimizer=schedule_free_adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1")


class Batches(Callback):
    """The batches of a training, and the weights that are validated."""

    def __init__(self) -> None:
        self.batches, self.validated, self.modes = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.batches.append(batch)
        self.modes.append(trainer.optimizers[0].param_groups[0]["train_mode"])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.validated.append({key: value.clone() for key, value in pl_module.state_dict().items()})
        self.modes.append(trainer.optimizers[0].param_groups[0]["train_mode"])


def test_weights_and_statistics_are_those_of_the_librarys_loop(fit_tiny, tiny_parts, tmp_path):
    recorded = Batches()
    module, _ = fit_tiny(tmp_path, *OWN, epochs=3, callbacks=[recorded])
    _, _, other = tiny_parts(*OWN)
    optimizer = AdamWScheduleFree(other.parameters(), lr=0.01, weight_decay=0.1)
    assert recorded.modes == [*[True] * 4, False] * 3
    for epoch in range(3):
        batches = recorded.batches[4 * epoch : 4 * epoch + 4]
        other.train()
        optimizer.train()
        for batch in batches:
            optimizer.zero_grad()
            other.training_loss(batch).backward()
            optimizer.step()
        optimizer.eval()
        update_bn([other.normalized(batch["image"]) for batch in batches], other.network)
        for key, value in other.state_dict().items():
            assert torch.equal(recorded.validated[epoch][key], value), key
    stored = load_module(tmp_path / "checkpoints/last.ckpt").state_dict()
    assert all(torch.equal(stored[key], value) for key, value in other.state_dict().items())
    assert all(torch.equal(module.state_dict()[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize("optimizer", ["schedule_free_adamw", "schedule_free_sgd"])
def test_a_validation_in_the_middle_of_an_epoch_is_of_the_averages_too(fit_tiny, tmp_path, optimizer):
    recorded = Batches()
    fit_tiny(tmp_path, f"optimizer={optimizer}", epochs=1, callbacks=[recorded], val_check_interval=0.5)
    assert recorded.modes == [True, True, False, True, True, False]


def test_a_checkpoint_holds_the_averages_where_not_every_epoch_validates(fit_tiny, tmp_path):
    fit_tiny(tmp_path, *OWN, epochs=3, check_val_every_n_epoch=2)
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["train_mode"] is False


def test_a_frozen_encoder_keeps_its_statistics():
    torch.manual_seed(0)
    network = SMP(3, encoder="resnet18", freeze_encoder=True).train()
    batches = torch.randn(3, 2, 3, 64, 64).unbind()
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        measure_statistics(network, batches)
    after = network.state_dict()
    frozen = [key for key in after if ".encoder." in key]
    assert frozen
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    measured = [key for key in after if "running" in key and key not in frozen]
    assert measured
    assert all(not torch.equal(after[key], before[key]) for key in measured)
    assert network.training
    assert not network.encoder.training
    assert {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
