import numpy as np
import pytest
import torch
from torch import nn

from petseg_lightning.data.targets import pet_target
from petseg_lightning.losses.cross_entropy import CrossEntropyLoss
from petseg_lightning.module import SegmentationModule
from petseg_lightning.segmenter import classes


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_classes_are_the_first_of_the_highest_logits(memory_format):
    logits = torch.randint(-2, 3, (2, 4, 5, 6)).float().to(memory_format=memory_format)  # with many ties
    assert np.array_equal(classes(logits).numpy(), logits.numpy().argmax(axis=1))


def test_validation_loss_is_the_mean_over_images_whatever_the_batches(monkeypatch):
    module = SegmentationModule(nn.Conv2d(3, 3, 1), CrossEntropyLoss(), pet_target("trimap"), [0.5] * 3, [0.25] * 3)
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(module, "log_dict", logged.update)
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    parts = torch.randint(5, (4, 8, 8), dtype=torch.uint8)
    module.on_validation_epoch_start()
    with torch.inference_mode():
        for rows in ([0, 1, 2], [3]):
            batch = {"image": images[rows], "parts": parts[rows], "index": torch.tensor(rows)}
            module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        masks = torch.tensor(module.target.part_to_class)[parts.long()]
        expected = np.mean([nn.functional.cross_entropy(module(images[i : i + 1]), masks[i : i + 1]) for i in range(4)])
        predictions = module(images).argmax(1)
    assert logged["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert logged["val/accuracy"] == pytest.approx((predictions == masks).float().mean().item())
