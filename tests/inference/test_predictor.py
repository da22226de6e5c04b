"""A picture of any size -> classes at its own size, as the network says them."""

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.checks import RULES
from petseg_lightning.errors import InputError
from petseg_lightning.inference.checkpoint import load_module
from petseg_lightning.inference.member import TTA, Member
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.segmenter import classes, resize_logits

DESCRIPTION = {"target": {"class_names": ("pet", "background", "border")}, "preprocessing": {"image_size": 32}}


@pytest.fixture
def picture() -> Image.Image:
    """57 x 43 pixels of smooth colours, not symmetric."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((57, 43), Image.Resampling.BICUBIC)


def by_hand(path, picture) -> torch.Tensor:
    """The logits of a picture at its own size, step by step."""
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        logits = load_module(path)(torch.from_numpy(small.copy()).permute(2, 0, 1)[None])
    return resize_logits(logits, (picture.height, picture.width))


def test_a_prediction_is_the_networks(make_checkpoint, picture, tmp_path):
    path = make_checkpoint(temperature=2.0)
    logits = by_hand(path, picture)
    picture.save(tmp_path / "picture.png")
    for given in (picture, np.asarray(picture), tmp_path / "picture.png", str(tmp_path / "picture.png")):
        prediction = Predictor.load(path)(given)
        np.testing.assert_array_equal(prediction.classes, classes(logits)[0].numpy())
        np.testing.assert_allclose(prediction.probabilities, (logits[0] / 2).softmax(0).numpy(), atol=2e-4)
    assert prediction.classes.shape == (43, 57)
    assert prediction.class_names == ("pet", "background", "border")
    assert len(np.unique(prediction.classes)) > 1  # else nothing was tested
    assert 0 < prediction.confidence < 1


def test_its_pictures(make_checkpoint, picture):
    prediction = Predictor.load(make_checkpoint())(picture)
    np.testing.assert_array_equal(np.asarray(prediction.mask), prediction.classes)
    assert prediction.mask.mode == "P"
    background = prediction.classes == 1
    assert prediction.mask.convert("RGB").getpixel(tuple(np.argwhere(background)[0][::-1].tolist())) == (
        0x5F,
        0x6B,
        0x76,
    )
    np.testing.assert_array_equal(np.asarray(prediction.overlay)[background], np.asarray(picture)[background])
    assert prediction.cutout.mode == "RGBA"
    assert prediction.mask.size == prediction.overlay.size == prediction.cutout.size == picture.size


def test_a_batch_is_predicted_as_its_pictures_are(make_checkpoint, picture):
    predictor = Predictor.load(make_checkpoint())
    other = picture.transpose(Image.Transpose.ROTATE_90).resize((20, 90))
    (logits,) = predictor.logits([picture, other])
    for image, one in zip((picture, other), logits, strict=True):
        np.testing.assert_allclose(
            predictor.finish(image, [one]).probabilities, predictor(image).probabilities, atol=2e-4
        )


def test_an_ensemble_averages_probabilities(make_checkpoint, picture):
    paths = make_checkpoint("a.ckpt"), make_checkpoint("b.ckpt", seed=1, temperature=3.0)
    both = Predictor.load(*paths)(picture)
    single = [Predictor.load(path)(picture).probabilities for path in paths]
    np.testing.assert_allclose(both.probabilities, np.mean(single, axis=0), atol=2e-4)


def test_an_ensemble_of_other_classes(make_checkpoint):
    paths = make_checkpoint("a.ckpt"), make_checkpoint("b.ckpt", target="species")
    with pytest.raises(InputError, match="not of pet, background, border and background, cat, dog; leave one"):
        Predictor.load(*paths)


def test_with_flips_a_mirrored_picture_has_the_mirrored_prediction(make_checkpoint, picture):
    path, mirrored = make_checkpoint(), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    predictor = Predictor.load(path, tta="flip")
    there, back = predictor(picture).probabilities, predictor(mirrored).probabilities[..., ::-1]
    np.testing.assert_allclose(there, back, atol=2e-4)
    assert np.abs(there - Predictor.load(path)(picture).probabilities).max() > 0.01


def test_the_views_of_multiscale():
    """A network that counts them, and answers with what it sees."""
    seen = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.clone())
        return images.float()

    ramp = np.tile(np.linspace(0, 255, 128, dtype=np.uint8)[None, :, None], (128, 1, 3))
    logits = Member(network, DESCRIPTION | {"preprocessing": {"image_size": 128}}, "multiscale").logits(
        [Image.fromarray(ramp)]
    )
    assert [tuple(images.shape) for images in seen] == [(1, 3, s, s) for s in (96, 96, 128, 128, 160, 160)]
    assert all((first[..., 0] < second[..., 0]).all() for first, second in zip(seen[::2], seen[1::2], strict=True))
    np.testing.assert_allclose(logits[0, :, :, 8:-8], ramp.transpose(2, 0, 1)[:, :, 8:-8], atol=2)


def test_the_check_of_a_config_knows_every_kind_of_views():
    assert all(RULES["tta"].holds(name) for name in TTA)
    assert RULES["tta"].text.count(",") + 2 == len(TTA)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 2)])
def test_pictures_of_odd_shapes(make_checkpoint, shape):
    prediction = Predictor.load(make_checkpoint())(np.full((*shape, 3), 90, np.uint8))
    assert prediction.classes.shape == shape
    assert prediction.cutout.size == shape[::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_camera_gives_the_same_mask(make_checkpoint, picture, tmp_path, orientation):
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    turned = picture if stored is None else picture.transpose(stored)
    turned.save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor.load(make_checkpoint())
    np.testing.assert_array_equal(predictor(tmp_path / "turned.png").classes, predictor(picture).classes)
