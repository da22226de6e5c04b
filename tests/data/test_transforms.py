from functools import cache

import numpy as np
import pytest

from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose
from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import A, Augmentation

SIZE, PARTS = 48, (0, 2, 4)
OPTIONS = options("augmentation")


@cache
def described(option: str) -> list:
    return list(compose("train", [f"augmentation={option}", f"data.image_size={SIZE}"]).augmentation.transforms)


def augmentation(option: str, seed: int = 0) -> Augmentation:
    return Augmentation(build(described(option)), seed)


@pytest.fixture(scope="module")
def picture():
    """A textured picture, and blobs of three parts, between whose numbers there are others."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    parts = np.kron(rng.choice(PARTS, (4, 4)), np.ones((12, 12))).astype(np.uint8)
    return image, parts


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_types_sizes_and_values_stay_and_the_originals_too(option, picture):
    image, parts = (array.copy() for array in picture)
    augment = augmentation(option)
    values = set()
    for index in range(60):
        new_image, new_parts = augment(image, parts, 0, index)
        assert new_image.dtype == new_parts.dtype == np.uint8
        assert (new_image.shape, new_parts.shape) == (image.shape, parts.shape)
        values |= set(np.unique(new_parts).tolist())
        assert same((image, parts), picture)  # the cache's arrays
    assert values <= {*PARTS, IGNORE}


@pytest.mark.parametrize("option", [option for option in OPTIONS if described(option)])
def test_a_draw_depends_on_seed_epoch_and_index_alone(option, picture):
    augment, again = augmentation(option), augmentation(option)
    keys = [(epoch, index) for epoch in range(3) for index in range(12)]
    draws = {key: augment(*picture, *key) for key in keys}
    for key in reversed(keys):
        assert same(again(*picture, *key), draws[key])
    assert same(augment(*picture, *keys[5]), draws[keys[5]])
    other = augmentation(option, seed=1)
    unlike = sum(not same(other(*picture, *key), draws[key]) for key in keys)
    assert unlike > len(keys) / 2
    distinct = {image.tobytes() for image, _ in draws.values()}
    assert len(distinct) > len(keys) / 2
    for fixed in range(3):  # the epochs of one index, as the indices of one epoch
        assert len({draws[epoch, fixed][0].tobytes() for epoch in range(3)}) > 1


def test_no_augmentation_changes_nothing(picture):
    assert same(augmentation("none")(*picture, 3, 4), picture)


GEOMETRY = ("HorizontalFlip", "Affine", "RandomResizedCrop")
MOVES = [
    pytest.param(option, i, id=f"{option}-{node['_target_'].rpartition('.')[2]}")
    for option in OPTIONS
    for i, node in enumerate(described(option))
    if node["_target_"].endswith(GEOMETRY)
]


@pytest.mark.parametrize(("option", "position"), MOVES)
@pytest.mark.parametrize("nested", [False, True])
def test_picture_and_mask_move_together(option, position, nested):
    """The picture shows its mask, so it must show the moved mask afterwards: in place, but for blurred edges."""
    parts = np.zeros((SIZE, SIZE), np.uint8)
    parts[20:, 20:] = 1  # edges to the left and above only: a mask that is moved gains or loses area
    transform = build({**described(option)[position], "p": 1.0})
    augment = Augmentation([A.OneOf([transform], p=1.0)] if nested else [transform], seed=0)
    moved_masks, shifts = set(), []
    for index in range(40):
        image, moved = augment(np.stack([parts * 200] * 3, -1), parts, 0, index)
        assert ((image[..., 0] > 100) == (moved == 1)).mean() > 0.97
        moved_masks.add(moved.tobytes())
        shifts.append((image[..., 0].sum() / 200 - moved.sum()) / (2 * SIZE))
    assert moved_masks != {parts.tobytes()}
    assert len(moved_masks) == 1 if isinstance(transform, A.HorizontalFlip) else len(moved_masks) > 25
    assert abs(np.mean(shifts)) < 0.1  # pixels


def test_what_a_hole_hides_is_ignored(picture):
    (hole,) = [node for node in described("strong") if node["_target_"].endswith("CoarseDropout")]
    image, parts = np.maximum(picture[0], 1), picture[1]
    new_image, new_parts = Augmentation([build({**hole, "p": 1.0})], seed=0)(image, parts, 0, 0)
    hidden = (new_image == 0).all(-1)
    assert 0 < hidden.mean() < 0.5
    np.testing.assert_array_equal(new_parts, np.where(hidden, IGNORE, parts))
    np.testing.assert_array_equal(new_image[~hidden], image[~hidden])


def test_transforms_are_drawn_independently_of_each_other():
    """Two transforms of probability 1/2 meet in a quarter of the pictures: one seed for both would make it a half."""
    image = np.arange(SIZE * SIZE * 3, dtype=np.uint8).reshape(SIZE, SIZE, 3)
    parts = np.zeros((SIZE, SIZE), np.uint8)
    augment = Augmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], seed=0)
    results = [augment(image, parts, 0, index)[0] for index in range(800)]
    for expected in (image, image[:, ::-1], image[::-1], image[::-1, ::-1]):
        assert 0.19 < np.mean([np.array_equal(result, expected) for result in results]) < 0.31
