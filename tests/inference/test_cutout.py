"""Soft edges beside the alpha that composites are known to have."""

import cv2
import numpy as np
import pytest
import torch
from kornia.filters import guided_blur
from PIL import Image

from petseg_lightning.data.drawing.breeds import BREEDS
from petseg_lightning.data.drawing.picture import draw_picture
from petseg_lightning.inference import cutout
from petseg_lightning.inference.cutout import cut_out, foreground, soft_alpha

HEIGHT, WIDTH, OVERSAMPLING = 300, 400, 4


def silhouette(rng: np.random.Generator, furry: bool) -> np.ndarray:
    """A known alpha, float32 (H,W): a blob, with hairs across its outline if it is furry, drawn large."""
    size = np.array([WIDTH, HEIGHT]) * OVERSAMPLING
    centre, radii = size * rng.uniform(0.4, 0.6, 2), size * rng.uniform((0.15, 0.2), (0.28, 0.35))
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    waves = 1 + sum(rng.uniform(0, 0.12) * np.sin(k * angles + rng.uniform(0, 6)) for k in (2, 3, 5))
    outline = centre + radii * waves[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    drawn = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(drawn, [outline.astype(np.int32)], 255)
    for point in outline[rng.integers(0, len(outline), 1500 if furry else 0)]:
        direction = (point - centre) / np.linalg.norm(point - centre) + rng.normal(0, 0.5, 2)
        ends = (tuple((point + step * direction).astype(int).tolist()) for step in (-6, rng.uniform(8, 40)))
        cv2.line(drawn, *ends, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    return cv2.resize(drawn, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def as_a_network_says_it(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The alpha at 128 x 128, shifted, blurred, wrong in places, and enlarged."""
    shift = np.float32([[1, 0, rng.uniform(-2.5, 2.5)], [0, 1, rng.uniform(-2.5, 2.5)]])
    shifted = cv2.warpAffine(alpha, shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    small = cv2.GaussianBlur(cv2.resize(shifted, (128, 128), interpolation=cv2.INTER_AREA), (0, 0), 1.2)
    noise = cv2.GaussianBlur(rng.normal(0, 1, small.shape).astype(np.float32), (0, 0), 4)
    small = (small + 0.32 * noise / noise.std() * small * (1 - small)).clip(0, 1)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def composites() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """40 of (image, known alpha, foreground as a network says it, colours of the foreground)."""
    made = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        alpha = silhouette(rng, furry=seed % 4 != 0)
        there, behind = (
            cv2.resize(draw_picture(rng, BREEDS[(seed + 7 * i) % len(BREEDS)], WIDTH)[0], (WIDTH, HEIGHT))
            for i in (0, 1)
        )
        mixed = alpha[..., None] * there + (1 - alpha[..., None]) * behind
        image = (mixed + rng.normal(0, 3, mixed.shape)).round().clip(0, 255).astype(np.uint8)
        made.append((image, alpha, as_a_network_says_it(alpha, rng), there))
    return made


def test_a_soft_edge_is_nearer_to_the_known_alpha_than_a_hard_one(composites):
    ratios = []
    for image, alpha, said, _ in composites:
        soft, hard = soft_alpha(image, said), said > 0.5
        ratios.append(np.abs(soft - alpha).sum() / np.abs(hard - alpha).sum())
    assert np.mean(np.array(ratios) < 1) >= 0.95
    assert np.median(ratios) < 0.8


def test_the_colours_of_an_edge_are_the_foregrounds(composites):
    """Beside those of the picture, in which the background shines through."""
    better = 0
    for image, alpha, _, there in composites:
        edge = (alpha > 0.2) & (alpha < 0.8)
        errors = [
            np.abs(colours[edge].astype(float) - there[edge]).mean()
            for colours in (cut_out(Image.fromarray(image), alpha)[..., :3], image)
        ]
        better += errors[0] < errors[1]
    assert better >= 0.9 * len(composites)


def test_the_inside_and_the_outside_are_left_alone(composites):
    image, alpha, said, _ = composites[0]
    result = cut_out(Image.fromarray(image), said)
    assert (result.dtype, result.shape) == (np.uint8, (HEIGHT, WIDTH, 4))
    inside = cv2.erode((alpha == 1).astype(np.uint8), np.ones((41, 41))) == 1
    outside = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((41, 41))) == 0
    assert (result[inside, 3] == 255).all()
    assert (result[outside, 3] == 0).all()
    np.testing.assert_array_equal(result[inside, :3], image[inside])


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (90, 70)])
def test_nothing_and_everything(shape, value):
    result = cut_out(Image.new("RGB", shape[::-1], (77, 77, 77)), np.full(shape, value, np.float32))
    assert (result[..., 3] == 255 * value).all()
    assert (result[..., :3] == 77).all()


@pytest.mark.parametrize(
    ("names", "shares"),
    [
        (("pet", "background", "border"), (1, 0, 0.5)),
        (("background", "cat", "dog"), (0, 1, 1)),
        (("sky", "kite", "string"), (0, 1, 1)),
    ],
)
def test_what_is_foreground(names, shares):
    np.testing.assert_array_equal(foreground(np.eye(3, dtype=np.float32)[:, None], names), np.float32([shares]))


@pytest.mark.parametrize("size", [(400, 300), (1013, 777), (520, 1041)])
def test_the_edge_is_that_of_kornias_guided_filter(composites, size, monkeypatch):
    """Which takes 60 bytes for a pixel, and so cannot be used for large pictures; in parts as in one."""
    image, _, said, _ = composites[0]
    image, said = cv2.resize(image, size), cv2.resize(said, size).clip(0, 1)
    step = max(1, max(size) // 250)
    window = (2 * max(1, round(cutout.RADIUS * max(size) / step)) * step + 1,) * 2
    guidance = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
    expected = guided_blur(guidance, torch.from_numpy(said)[None, None], window, cutout.EPSILON, subsample=step)[0, 0]
    expected = ((expected - cutout.CERTAIN) / (1 - 2 * cutout.CERTAIN)).clip(0, 1)
    np.testing.assert_allclose(soft_alpha(image, said), expected, atol=2e-3)
    whole = cut_out(Image.fromarray(image), said)
    monkeypatch.setattr(cutout, "_AT_ONCE", 50_000)
    np.testing.assert_allclose(soft_alpha(image, said), expected, atol=2e-3)
    assert np.abs(cut_out(Image.fromarray(image), said).astype(int) - whole).max() <= 1
