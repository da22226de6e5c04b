"""Pictures of drawn pets and their trimaps."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from inspect import getsource

import numpy as np
import pytest

from petseg_lightning.data.drawing import picture
from petseg_lightning.data.drawing.breeds import BREEDS
from petseg_lightning.data.drawing.pen import box, ellipse
from petseg_lightning.data.drawing.picture import (
    BACKGROUND,
    BORDER,
    BORDER_WIDTH,
    MIN_PET_SHARE,
    PET,
    draw_picture,
    make_trimap,
)

SIZE = 64
NUM_PICTURES = 80
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@pytest.fixture(scope="module")
def pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        draw_picture(np.random.default_rng(number), BREEDS[number % len(BREEDS)], SIZE)
        for number in range(NUM_PICTURES)
    ]


def brute_force_trimap(visible: np.ndarray, border_width: float) -> np.ndarray:
    """Every pixel's distance to the nearest one of the other side, pair by pair."""
    points = np.argwhere(np.ones_like(visible))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    to_other = np.where(visible.ravel()[:, None] != visible.ravel()[None], distance, np.inf).min(axis=1)
    inner = np.where(visible.ravel(), PET, BACKGROUND)
    return np.where(to_other <= border_width / 2, BORDER, inner).reshape(visible.shape)


@pytest.mark.parametrize("border_width", [1.0, 2.0, 4.5, 9.0])
def test_the_trimap_is_that_of_brute_force(border_width: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows, columns = np.ogrid[:24, :30]
        centre, radius = rng.uniform(0, 24, 2), rng.uniform(4, 12)
        visible = np.hypot(rows - centre[0], columns - centre[1]) < radius
        visible[:, 14:16] = False
        np.testing.assert_array_equal(make_trimap(visible, border_width), brute_force_trimap(visible, border_width))


def test_the_edge_of_the_picture_is_no_border() -> None:
    trimap = make_trimap(np.arange(20)[None, :].repeat(10, axis=0) < 10, border_width=4)
    np.testing.assert_array_equal(trimap, [[PET] * 8 + [BORDER] * 4 + [BACKGROUND] * 8] * 10)


def test_pictures_have_their_size_and_several_shapes(pictures: list) -> None:
    for image, trimap in pictures:
        assert image.dtype == trimap.dtype == np.uint8
        assert image.shape == (*trimap.shape, 3)
        assert max(trimap.shape) == SIZE
    shapes = {trimap.shape for _, trimap in pictures}
    assert {height < width for height, width in shapes} == {True, False}


def test_every_picture_shows_a_pet_with_a_border_all_around(pictures: list) -> None:
    for _, trimap in pictures:
        assert set(np.unique(trimap)) <= {PET, BACKGROUND, BORDER}
        assert np.mean(trimap == PET) >= MIN_PET_SHARE
        for first, second in ((trimap[1:], trimap[:-1]), (trimap[:, 1:], trimap[:, :-1])):
            assert not np.any((first == PET) & (second == BACKGROUND))
            assert not np.any((first == BACKGROUND) & (second == PET))


def test_the_pets_are_of_many_sizes(pictures: list) -> None:
    shares = np.array([np.mean(trimap != BACKGROUND) for _, trimap in pictures])
    assert shares.min() < 0.15
    assert shares.max() > 0.6


def test_the_border_is_as_wide_as_it_says(pictures: list) -> None:
    """In rows where background, border and pet follow each other, a border is at least as wide as it is deep."""
    widths = []
    for _, trimap in pictures:
        for row in trimap:
            starts = np.flatnonzero(np.diff(row)) + 1
            runs = np.split(row, starts)
            widths += [
                len(run)
                for before, run, after in zip(runs, runs[1:], runs[2:], strict=False)
                if (before[0], run[0], after[0]) == (BACKGROUND, BORDER, PET)
            ]
    assert np.percentile(widths, 5) >= np.floor(BORDER_WIDTH * SIZE) - 1
    assert np.median(widths) <= 2 * BORDER_WIDTH * SIZE


def test_what_has_the_pets_colours_is_not_background() -> None:
    """The same drawings in other colours differ in the pet only: an oracle that knows nothing of labels."""
    breed = next(breed for breed in BREEDS if breed.name == "saddle_shepherd")
    recoloured = replace(breed, marks=((0, 255, 0),), ear_colour=(0, 255, 0), muzzle=(0, 255, 0), chest=(0, 255, 0))
    for seed in range(20):
        image, trimap = draw_picture(np.random.default_rng(seed), breed, SIZE)
        other, other_trimap = draw_picture(np.random.default_rng(seed), recoloured, SIZE)
        np.testing.assert_array_equal(trimap, other_trimap)
        differs = np.abs(image.astype(int) - other).max(axis=2) > 32  # more than a sliver of a pixel
        assert not np.any(differs & (trimap == BACKGROUND))
        assert np.mean(differs[trimap == PET]) > 0.1


def test_the_trimap_is_that_of_what_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A white disc as the pet, and a black box in front of it, on black: the picture itself is the oracle."""
    monkeypatch.setattr(picture, "BACKGROUNDS", [lambda _scene: None])
    monkeypatch.setattr(
        picture,
        "POSES",
        {pose: lambda pen, _coat: pen.paint(ellipse(0, -0.5, 0.5, 0.5), WHITE) for pose in picture.POSES},
    )
    monkeypatch.setattr(
        picture, "OCCLUDERS", [lambda scene, x, foot, size: scene.pen.paint(box(x, foot - size, x + size, foot), BLACK)]
    )
    monkeypatch.setattr(picture, "_photographed", lambda image, _rng: image)
    black_pet, cut = replace(BREEDS[0], coat=BLACK, marks=()), 0
    for seed in range(30):
        image, trimap = draw_picture(np.random.default_rng(seed), black_pet, SIZE)
        seen = image[..., 0] >= 128
        np.testing.assert_array_equal(trimap, make_trimap(seen, BORDER_WIDTH * SIZE))
        cut += seen.sum() < 0.9 * np.pi / 4 * np.ptp(np.flatnonzero(seen.any(axis=1))) ** 2
    assert cut > 5


def test_pictures_differ_and_are_not_flat(pictures: list) -> None:
    assert len({image.tobytes() for image, _ in pictures}) == NUM_PICTURES
    assert min(image.std() for image, _ in pictures) > 8


def digest() -> str:
    image, trimap = draw_picture(np.random.default_rng([3, 1, 4]), BREEDS[2], 96)
    return hashlib.sha256(image.tobytes() + trimap.tobytes()).hexdigest()


def test_another_process_draws_the_same() -> None:
    code = "\n".join(
        [
            "import hashlib, numpy as np",
            "from petseg_lightning.data.drawing.breeds import BREEDS",
            "from petseg_lightning.data.drawing.picture import draw_picture",
            getsource(digest),
            "print(digest())",
        ]
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()
