"""A loss is added by one class and one YAML, from outside of the package too."""

from petseg_lightning.checks import check
from petseg_lightning.config import compose
from petseg_lightning.training import build_datamodule, build_module

CLASS = """
import torch

class SquaredError(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, logits, masks):
        valid = (masks != 255)[:, None]
        truth = torch.nn.functional.one_hot(masks.where(valid[:, 0], 0), logits.shape[1]).movedim(-1, 1)
        return self.scale * ((logits.softmax(1) - truth) * valid).square().sum() / valid.sum().clamp(min=1)
"""
YAML = """# Squared error of the probabilities.
_target_: squared_error.SquaredError
scale: 0.5
"""


def test_a_new_loss_takes_one_class_and_one_yaml(tiny_pets, tmp_path, monkeypatch):
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "squared_error.yaml").write_text(YAML)
    (tmp_path / "squared_error.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    small = [f"data.root={tiny_pets()}", "data.image_size=16", "data.batch_size=4", "data.num_workers=0"]
    own = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "loss=squared_error", "loss.scale=2"]
    cfg = compose("train", [*small, *own, "model.base_channels=2"], output_dir=tmp_path / "run")
    check(cfg)
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    assert module.loss.scale == 2
    optimizer = module.configure_optimizers()
    batch = next(iter(datamodule.train_dataloader()))
    before = module.training_loss(batch)
    before.backward()
    optimizer.step()
    assert module.training_loss(batch) < before
