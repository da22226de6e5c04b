"""Windows of pictures and their blending, by known answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from petseg_lightning.errors import InputError
from petseg_lightning.inference.member import Member
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.tiling import OVERLAP, Window, blend, windows


@pytest.mark.parametrize(
    ("size", "tiling", "expected"),
    [
        ((400, 300), "none", [(0, 0, 400, 300)]),
        ((600, 300), "auto", [(0, 0, 600, 300)]),  # 2:1 is squeezed
        ((601, 300), "auto", [(0, 0, 300, 300), (150, 0, 450, 300), (301, 0, 601, 300)]),
        ((100, 250), "auto", [(0, 0, 100, 100), (0, 75, 100, 175), (0, 150, 100, 250)]),
        ((100, 100), 100, [(0, 0, 100, 100)]),
        ((100, 100), 999, [(0, 0, 100, 100)]),
        ((1, 1), "auto", [(0, 0, 1, 1)]),
        ((1, 3), "auto", [(0, 0, 1, 1), (0, 1, 1, 2), (0, 2, 1, 3)]),
        ((140, 80), 80, [(0, 0, 80, 80), (60, 0, 140, 80)]),
    ],
)
def test_where_windows_are(size, tiling, expected):
    assert windows(*size, tiling) == [Window(*one) for one in expected]


@pytest.mark.parametrize("size", [(501, 333), (64, 900), (200, 200)])
def test_squares_cover_the_picture_and_overlap(size):
    width, height = size
    times = np.zeros((height, width), int)
    for left, top, right, bottom in windows(width, height, 96):
        assert (right - left, bottom - top) == (min(96, width), min(96, height))
        times[top:bottom, left:right] += 1
    assert times.min() >= 1
    lefts = sorted({window.left for window in windows(width, height, 96)})
    assert all(after - before <= 96 * (1 - OVERLAP) for before, after in pairwise(lefts))


def test_windows_that_agree_have_no_seam():
    places = windows(130, 70, 40)
    logits = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1).expand(len(places), 2, 8, 8)
    blended = blend(logits, places, (70, 130))
    torch.testing.assert_close(blended, torch.tensor([3.0, -1.0]).view(2, 1, 1).expand(2, 70, 130))


def test_windows_that_differ_fade_into_each_other():
    places = [Window(0, 0, 8, 4), Window(6, 0, 14, 4)]  # the fade is 2 pixels wide
    row = blend(torch.tensor([0.0, 8.0]).view(2, 1, 1, 1), places, (4, 14))[0, 0]
    assert row.tolist() == pytest.approx([0] * 6 + [2.0, 6.0] + [8] * 6)


@pytest.mark.parametrize(
    ("size", "tiling"), [((130, 70), 40), ((130, 70), "none"), ((9, 300), "auto"), ((20, 7), "none")]
)
def test_parts_of_a_picture_are_those_of_the_whole(size, tiling):
    places = windows(*size, tiling)
    logits = torch.randn(len(places), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    height = size[1]
    whole = blend(logits, places, (height, size[0]))
    for rows in (1, 11, height - 1):
        parts = [
            blend(logits, places, (height, size[0]), (top, min(top + rows, height))) for top in range(0, height, rows)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(100_000, 1), (8192, 6144)])
def test_too_many_windows_are_refused_before_they_are_listed(size):
    with pytest.raises(InputError, match=r"in windows of tiling=1 are [\d,]+ windows, and 1,000 are the most; give"):
        windows(*size, 1)


def test_too_large_windows_are_refused():
    description = {"target": {"class_names": ["a", "b"]}, "preprocessing": {"image_size": 1024}}
    predictor = Predictor([Member(lambda images: images[:, :2].float(), description)], 256)
    predictor.require_room(500, 500)
    with pytest.raises(
        InputError, match=r"651 windows of 6000 x 4000 pixels take 5\.1 GiB of memory, and 1 is the most"
    ):
        predictor.require_room(6000, 4000)


def test_a_pixelwise_network_says_the_same_with_windows_and_without():
    description = {"target": {"class_names": ["a", "b"]}, "preprocessing": {"image_size": 64}}
    member = Member(lambda images: images[:, :2].float() / 64, description)
    gradient = np.linspace(0, 255, 256)[None, :, None] * np.linspace(0, 1, 192)[:, None, None]
    picture = Image.fromarray(np.broadcast_to(gradient, (192, 256, 3)).astype(np.uint8).copy())
    whole, tiled = (Predictor([member], tiling)(picture).probabilities for tiling in ("none", 64))
    np.testing.assert_allclose(tiled, whole, atol=0.02)


def test_windows_see_what_a_squeezed_picture_loses():
    description = {"target": {"class_names": ["a", "b"]}, "preprocessing": {"image_size": 32}}
    member = Member(
        lambda images: torch.stack([images[:, 0].float() - 128, 128 - images[:, 0].float()], 1), description
    )
    stripes = np.where(np.arange(512) // 4 % 2, 255, 0).astype(np.uint8)
    picture = Image.fromarray(np.broadcast_to(stripes[None, :, None], (32, 512, 3)).copy())
    expected = np.broadcast_to(stripes == 0, (32, 512))
    assert (Predictor([member], "auto")(picture).classes == expected).mean() > 0.99
    assert (Predictor([member], "none")(picture).classes == expected).mean() < 0.8
