import numpy as np
import pytest
import torch

from petseg_lightning.callbacks.recorder import _measured
from petseg_lightning.data.targets import pet_target
from petseg_lightning.metrics.boundary import boundary_counts
from petseg_lightning.metrics.calibration import calibration_counts, expected_miou
from petseg_lightning.metrics.image_measures import boundary_error_share, edge_contrast


@pytest.fixture
def batch():
    """Two pictures of 24 x 30 pixels in the parts of pets, 255 among them, and what may be predicted for them."""
    rng = np.random.default_rng(0)
    parts = np.kron(rng.choice([0, 1, 2, 3, 4, 255], (2, 4, 5)), np.ones((6, 6), int)).astype(np.uint8)
    return rng.integers(0, 256, (2, 3, 24, 30), np.uint8), parts, rng.integers(0, 2, (2, 24, 30)).astype(np.uint8)


@pytest.mark.parametrize("border", ["pet", "background", "ignore"])
def test_measures_are_those_of_each_picture_in_the_models_classes(batch, border):
    class_of_part = {0: 0, 1: 1, 3: 1, 255: 255} | dict.fromkeys((2, 4), {"pet": 1, "background": 0}.get(border, 255))
    logits = torch.randn(2, 2, 24, 30, generator=torch.Generator().manual_seed(0))
    measured = _measured(pet_target("binary", border), *batch, logits, 1.6)
    for i, (image, parts, prediction) in enumerate(zip(*batch, strict=True)):
        truth = np.vectorize(class_of_part.get)(parts)
        foreground = (parts != 0) & (parts != 255)
        assert measured["boundary_counts"][i].tolist() == boundary_counts(truth, prediction, 2).tolist()
        assert measured["boundary_error_share"][i] == pytest.approx(boundary_error_share(truth, prediction))
        assert measured["edge_contrast"][i] == pytest.approx(edge_contrast(image.transpose(1, 2, 0), foreground))
        for place, temperature in enumerate((1.0, 1.6)):
            probabilities = (logits[i : i + 1] / temperature).softmax(1)
            expected = calibration_counts(probabilities, torch.from_numpy(truth)[None])[0]
            torch.testing.assert_close(measured["calibration_counts"][i, place], expected)
        assert float(measured["confidence"][i]) == pytest.approx(float(expected_miou(probabilities)[0]))
