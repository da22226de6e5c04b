"""The oracle is the pipeline on the CPU: picture by picture, the device must make the same of the same draw."""

import pickle
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode

from petseg_lightning.conf_tree import options
from petseg_lightning.config import build, compose
from petseg_lightning.data.device_augmentation import DeviceAugmentation
from petseg_lightning.data.targets import IGNORE
from petseg_lightning.data.transforms import A, Augmentation
from petseg_lightning.errors import InputError

SIZE, PARTS, PICTURES = 48, (0, 2, 4), 60
OPTIONS = options("augmentation")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@cache
def described(option: str) -> list:
    return list(compose("train", [f"augmentation={option}", f"data.image_size={SIZE}"]).augmentation.transforms)


def alone(option: str) -> list[tuple[str, dict]]:
    """Every transform of an option by itself, always applied."""
    nodes = [leaf for node in described(option) for leaf in node.get("transforms", [node])]
    return [(node["_target_"].rpartition(".")[2], {**node, "p": 1.0}) for node in nodes]


ALONE = [pytest.param([node], id=f"{option}-{name}") for option in OPTIONS for name, node in alone(option)]
VARIANTS = [
    pytest.param([{"_target_": f"albumentations.{name}", "p": 1.0, **settings}], id=f"{name}-{next(iter(settings))}")
    for name, settings in [
        ("Affine", {"translate_px": [-60, 60], "scale": [0.3, 2.0], "border_mode": cv2.BORDER_REFLECT_101}),
        ("ColorJitter", {"hue": 0, "saturation": [0, 2]}),
        ("ColorJitter", {"brightness": [0, 2], "hue": [-0.5, 0.5]}),
        ("GaussianBlur", {"blur_limit": [0, 6]}),
        ("CoarseDropout", {"fill": 100, "hole_height_range": [3, 9], "hole_width_range": [3, 9]}),
        ("RandomBrightnessContrast", {"p": 0}),
    ]
]
WHOLE = [pytest.param(described(option), id=option) for option in OPTIONS]


def transforms_of(nodes: list, *, silent: bool = False) -> list:
    """Built transforms; silent ones draw noise of no strength, the rest of the draws being the same."""
    transforms = build(nodes)
    for transform in transforms if silent else ():
        for leaf in getattr(transform, "transforms", None) if isinstance(transform, A.OneOf) else [transform]:
            if isinstance(leaf, A.GaussNoise):
                leaf.std_range = (0.0, 0.0)
    return transforms


@pytest.fixture(scope="module")
def pictures():
    """Smooth colours of all hues, some saturated; and blobs of three parts, between whose numbers there are others."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(-40, 296, (PICTURES, 12, 12, 3)).clip(0, 255).astype(np.uint8)
    images = np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in coarse])
    parts = np.kron(rng.choice(PARTS, (PICTURES, 6, 6)), np.ones((1, 8, 8))).astype(np.uint8)
    return images, parts


def on_cpu(augment: Augmentation, pictures, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    made = [augment(*picture, epoch, index) for index, picture in enumerate(zip(*pictures, strict=True))]
    return np.stack([image for image, _ in made]), np.stack([parts for _, parts in made])


def plans_of(augment: DeviceAugmentation, indices, epoch: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.stack([augment.plan(epoch, index) for index in indices]))


def tensors(pictures) -> tuple[torch.Tensor, torch.Tensor]:
    images, parts = pictures
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(parts)


def applied(augment: DeviceAugmentation, pictures, plans, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    images, parts = augment.apply(*(tensor.to(device) for tensor in (*tensors(pictures), plans)))
    assert images.is_contiguous(memory_format=torch.channels_last)
    return images.permute(0, 2, 3, 1).cpu().numpy(), parts.cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("nodes", [*ALONE, *VARIANTS, *WHOLE])
def test_every_picture_becomes_what_it_becomes_on_the_cpu(nodes, device, pictures):
    """But for noise, which has no strength here, and for rounding: less than half a grey level on the mean of any
    picture, most of it from crops, for which OpenCV rounds its weights. Masks are the same, but for two pixels in
    a thousand, on edges.
    """
    transforms = transforms_of(nodes, silent=True)
    images, parts = on_cpu(Augmentation(transforms, seed=3), pictures)
    augment = DeviceAugmentation(transforms, seed=3, image_size=SIZE)
    new_images, new_parts = applied(augment, pictures, plans_of(augment, range(PICTURES)), device)
    assert new_images.dtype == new_parts.dtype == np.uint8
    difference = np.abs(images.astype(int) - new_images)
    assert difference.mean((1, 2, 3)).max() < 0.5
    assert (difference > 8).mean() < 1e-3
    assert (parts != new_parts).mean() < 2e-3
    assert set(np.unique(new_parts).tolist()) <= {*PARTS, IGNORE}
    if nodes and nodes[0]["p"]:
        silent = any("GaussNoise" in node["_target_"] for node in nodes)
        assert silent or (np.abs(images.astype(int) - pictures[0]).mean((1, 2, 3)) > 1).mean() > 0.3


@pytest.mark.parametrize("size", [44, 48, 100])
def test_crops_keep_masks_in_place(size):
    """As OpenCV, save where a pixel's origin lies halfway between two: there OpenCV takes the one or the other."""
    (node,) = [node for name, node in alone("strong") if name == "RandomResizedCrop"]
    transforms = build([{**node, "size": [size, size]}])
    cpu, device = Augmentation(transforms, 0), DeviceAugmentation(transforms, 0, size)
    plans = plans_of(device, range(80))
    left, top, right, bottom = plans[:, 1:].long().numpy().T[:, :, None]
    odd = 2 * np.arange(size) + 1
    halfway_x, halfway_y = odd * (right - left) % (2 * size) == 0, odd * (bottom - top) % (2 * size) == 0
    columns, rows = np.broadcast_to(np.arange(size, dtype=np.uint8), (size, size)), np.arange(size, dtype=np.uint8)
    for digits, halfway in (
        (columns.copy(), np.broadcast_to(halfway_x[:, None, :], (80, size, size))),
        (np.repeat(rows[:, None], size, 1), np.broadcast_to(halfway_y[:, :, None], (80, size, size))),
    ):
        black = np.zeros((size, size, 3), np.uint8)
        wanted = np.stack([cpu(black, digits, 0, index)[1] for index in range(80)])
        _, got = applied(device, (np.stack([black] * 80), np.stack([digits] * 80)), plans)
        np.testing.assert_array_equal(got[~halfway], wanted[~halfway])
        assert np.abs(got.astype(int) - wanted)[halfway].max(initial=0) <= 1


@pytest.mark.parametrize("nodes", [whole for whole in WHOLE if whole.values[0]])
def test_a_draw_depends_on_seed_epoch_and_index_alone(nodes, pictures):
    augment = DeviceAugmentation(build(nodes), 0, SIZE)
    again = pickle.loads(pickle.dumps(augment))
    keys = [(epoch, index) for epoch in range(3) for index in range(12)]
    plans = {key: augment.plan(*key) for key in keys}
    for key in reversed(keys):
        np.testing.assert_array_equal(again.plan(*key), plans[key])
    assert all(plan.dtype == np.float32 and plan.shape == (augment.plan_size,) for plan in plans.values())
    other = DeviceAugmentation(build(nodes), 1, SIZE)
    assert sum(not np.array_equal(other.plan(*key), plans[key]) for key in keys) > len(keys) / 2
    assert len({plan.tobytes() for plan in plans.values()}) > len(keys) / 2


def test_a_picture_does_not_depend_on_its_batch(pictures):
    augment = DeviceAugmentation(build(described("strong")), 0, SIZE)
    plans = plans_of(augment, range(PICTURES))
    images, parts = applied(augment, pictures, plans)
    for chosen in ([7], [59, 3, 11, 30], list(range(PICTURES))[::-1]):
        some_images, some_parts = applied(augment, [array[chosen] for array in pictures], plans[chosen])
        np.testing.assert_array_equal(some_images, images[chosen])
        np.testing.assert_array_equal(some_parts, parts[chosen])


@pytest.mark.parametrize("nodes", [*ALONE, *WHOLE])
def test_a_plan_of_zeros_changes_nothing(nodes, pictures):
    augment = DeviceAugmentation(build(nodes), 0, SIZE)
    images, parts = applied(augment, pictures, torch.zeros(PICTURES, augment.plan_size))
    np.testing.assert_array_equal(images, pictures[0])
    np.testing.assert_array_equal(parts, pictures[1])


@pytest.mark.parametrize("std_range", [(0.05, 0.05), (0.02, 0.08)])
def test_noise_is_distributed_as_on_the_cpu(std_range):
    """On mid grey, so that nothing is cut off."""
    transforms = [A.GaussNoise(std_range=std_range, mean_range=(-0.02, 0.02), p=1.0)]
    grey = np.full((PICTURES, SIZE, SIZE, 3), 128, np.uint8), np.zeros((PICTURES, SIZE, SIZE), np.uint8)
    augment = DeviceAugmentation(transforms, 0, SIZE)
    wanted = on_cpu(Augmentation(transforms, 0), grey)[0].astype(float) - 128
    images, parts = applied(augment, grey, plans_of(augment, range(PICTURES)))
    noise = images.astype(float) - 128
    np.testing.assert_array_equal(parts, grey[1])
    samples = noise[0].size
    stds = wanted.std((1, 2, 3))
    assert (np.abs(noise.std((1, 2, 3)) / stds - 1) < 5 / np.sqrt(samples)).all()  # each picture's own strength
    assert (np.abs(noise.mean((1, 2, 3)) - wanted.mean((1, 2, 3))) < 6 * stds / np.sqrt(samples)).all()
    assert ks_2samp(noise.ravel(), wanted.ravel()).pvalue > 0.01
    normal = (noise - noise.mean((1, 2, 3), keepdims=True)) / noise.std((1, 2, 3), keepdims=True)
    standard = (wanted - wanted.mean((1, 2, 3), keepdims=True)) / stds[:, None, None, None]
    for moment in (3, 4):
        assert np.mean(normal**moment) == pytest.approx(np.mean(standard**moment), abs=0.05)
    for one, other in [
        (normal[:-1], normal[1:]),  # pictures, rows, columns, channels
        (normal[:, :-1], normal[:, 1:]),
        (normal[:, :, :-1], normal[:, :, 1:]),
        (normal[..., :-1], normal[..., 1:]),
    ]:
        assert abs(np.mean(one * other)) < 5 / np.sqrt(one.size)


class NoHost(TorchDispatchMode):
    """Fails where a tensor's values are needed on the host, or a tensor is made of values there."""

    BANNED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "is_nonzero", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.BANNED, name
        if name in ("index", "index_put", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("nodes", WHOLE)
def test_the_device_never_waits_for_the_host(nodes, pictures):
    augment = DeviceAugmentation(build(nodes), 0, SIZE)
    inputs = (*tensors(pictures), plans_of(augment, range(PICTURES)))
    with NoHost():
        augment.apply(*inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_synchronization_on_a_gpu(pictures):
    augment = DeviceAugmentation(build(described("strong")), 0, SIZE)
    inputs = [tensor.cuda() for tensor in (*tensors(pictures), plans_of(augment, range(PICTURES)))]
    augment.apply(*inputs)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment.apply(*inputs)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x + torch.tensor([1.0])],
)
def test_the_watch_sees_who_waits(wait):
    x = torch.arange(4.0)
    with pytest.raises(AssertionError), NoHost():
        wait(x)


def test_the_given_transforms_stay_as_they_are(pictures):
    transforms = build(described("strong"))
    untouched = on_cpu(Augmentation(build(described("strong")), 0), pictures)
    DeviceAugmentation(transforms, 0, SIZE).plan(0, 0)
    for one, other in zip(on_cpu(Augmentation(transforms, 0), pictures), untouched, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (A.GridDistortion(), "GridDistortion does not run on the device; HorizontalFlip, .*OneOf do; .*=false"),
        (A.OneOf([A.MotionBlur()]), "MotionBlur does not run on the device"),
        (A.Affine(rotate=5), "Affine with border_mode=0 does not run on the device, border_mode=4 does; change"),
        (A.Affine(rotate=5, border_mode=4, interpolation=cv2.INTER_CUBIC), "interpolation=2 .* interpolation=1 does"),
        (A.RandomResizedCrop(size=(32, 32)), r"size=\(32, 32\) .* size=\(48, 48\) does"),
        (A.RandomBrightnessContrast(brightness_by_max=False), "brightness_by_max=False"),
        (A.ToGray(method="max"), "method=max"),
        (A.GaussNoise(per_channel=False), "per_channel=False"),
        (A.CoarseDropout(fill="random"), "fill=random does not run on the device, a number does"),
    ],
)
def test_what_has_no_counterpart_is_refused(transform, words):
    with pytest.raises(InputError, match=words):
        DeviceAugmentation([transform], 0, SIZE)
