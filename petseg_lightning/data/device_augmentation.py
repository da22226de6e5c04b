"""Augmentation on the device: drawn for each picture as on the CPU, applied to whole batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import chain
from numbers import Real
from types import NoneType, UnionType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from petseg_lightning.data.transforms import A, Augmentation
from petseg_lightning.errors import InputError


class DeviceAugmentation:
    """What `Augmentation` makes of a picture, in two steps: `plan` draws, `apply` computes the pixels.

    The draws are albumentations' own, so a picture becomes what it becomes on the CPU, but for rounding, the
    interpolation's precision, and other noise of the same distribution.
    Raises InputError for a transform, or a setting of one, that has no counterpart on the device.
    """

    def __init__(self, transforms: Sequence[Any], seed: int, image_size: int) -> None:
        self.image_size = image_size
        self.augmentation = Augmentation(deepcopy(list(transforms)), seed)
        self.leaves = [leaf for leaf in _leaves(self.augmentation.pipeline) if leaf.p > 0]
        for leaf in self.leaves:
            _require_counterpart(leaf, image_size)
            leaf.apply_with_params = _leave_as_it_is
            if (draw := COUNTERPARTS[type(leaf)].draw) is not None:
                leaf.get_params_dependent_on_data = partial(draw, leaf)
            leaf(force_apply=True, image=self._blank[0])
        self.widths = [1 + len(_numbers(leaf)) for leaf in self.leaves]
        self.plan_size = sum(self.widths)

    @property
    def _blank(self) -> tuple[np.ndarray, np.ndarray]:
        """A picture and its mask that take no memory: draws depend on their shapes alone."""
        shape = self.image_size, self.image_size
        return np.broadcast_to(np.uint8(0), (*shape, 3)), np.broadcast_to(np.uint8(0), shape)

    def plan(self, epoch: int, index: int) -> np.ndarray:
        """The draw of a picture in an epoch, float32 (plan_size,): for each transform whether, and with what.

        All zeros leave a picture as it is.
        """
        for leaf in self.leaves:
            leaf.params = {}
        self.augmentation(*self._blank, epoch, index)
        return np.fromiter(
            chain.from_iterable(
                (1, *_numbers(leaf)) if leaf.params else (0,) * width
                for leaf, width in zip(self.leaves, self.widths, strict=True)
            ),
            np.float32,
            self.plan_size,
        )

    @torch.no_grad()
    def apply(self, images: Tensor, parts: Tensor, plans: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (B,3,S,S), parts uint8 (B,S,S), plans float32 (B,plan_size) to new images and parts.

        All on one device, which never waits for the host, nor the host for it. Images are channels last in memory.
        """
        for leaf, plan in zip(self.leaves, plans.split(self.widths, dim=1), strict=True):
            applied = plan[:, 0] > 0  # (B,)
            new_images, new_parts = COUNTERPARTS[type(leaf)].apply(images, parts, plan[:, 1:])
            images = torch.where(applied[:, None, None, None], new_images, images)
            if new_parts is not parts:
                parts = torch.where(applied[:, None, None], new_parts, parts)
        return images.contiguous(memory_format=torch.channels_last), parts


def _leaves(transforms: Iterable[Any]) -> Iterator[Any]:
    """The transforms that change pixels, in order. At most one of a OneOf is drawn, so it needs no step of its own."""
    for transform in transforms:
        if isinstance(transform, A.OneOf):
            yield from _leaves(transform)
        else:
            yield transform


def _require_counterpart(leaf: Any, image_size: int) -> None:
    name, ways = type(leaf).__name__, "change the augmentation, or set data.device_augment=false"
    if type(leaf) not in COUNTERPARTS:
        known = ", ".join(cls.__name__ for cls in (*COUNTERPARTS, A.OneOf))
        raise InputError(f"augmentation: {name} does not run on the device; {known} do; {ways}")
    needs = COUNTERPARTS[type(leaf)].needs | ({"size": (image_size, image_size)} if hasattr(leaf, "size") else {})
    for setting, needed in needs.items():
        value = getattr(leaf, setting)
        typed = isinstance(needed, type | UnionType)
        if not (isinstance(value, needed) if typed else value == needed):
            rule = "a number" if typed else f"{setting}={needed}"
            raise InputError(
                f"augmentation: {name} with {setting}={value} does not run on the device, {rule} does; {ways}"
            )


def _leave_as_it_is(_: dict[str, Any], **data: Any) -> dict[str, Any]:
    """Stands for a transform's pixel work; its draw stays in `transform.params`."""
    return data


def _numbers(leaf: Any) -> Sequence[float]:
    numbers = COUNTERPARTS[type(leaf)].numbers
    return () if numbers is None else numbers(leaf)


# Pixels: float32 with whole grey levels inside, uint8 between the transforms, as on the CPU.


def _rounded(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _truncated(pixels: Tensor) -> Tensor:
    return pixels.clamp(0, 255).to(torch.uint8)


def _per_image(values: Tensor) -> Iterator[Tensor]:
    """Columns of (B,n), each as (B,1,1,1)."""
    return iter(values[:, :, None, None, None].unbind(1))


def _columns_and_rows(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Whole x (W,) and y (H,1) of the pixels."""
    _, height, width = parts.shape
    return torch.arange(width, device=parts.device), torch.arange(height, device=parts.device)[:, None]


def _grey(pixels: Tensor) -> Tensor:
    """Luma in grey levels, (B,3,H,W) to (B,1,H,W): OpenCV's 15-bit weights, exact in float32."""
    red, green, blue = pixels.split(1, dim=1)
    return ((red * 9798 + green * 19235 + blue * 3735) / 32768 + 0.5).floor()


def _bilinear(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images at x, y (B,H,W) in pixels from the first one's centre, mirrored at the centres of the border pixels."""
    height, width = images.shape[2:]
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    return _rounded(grid_sample(images.float(), grid, padding_mode="reflection", align_corners=True))


def _pixels_at(parts: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Parts at whole x, y: int64, each (B,H,W) or broadcastable to it."""
    places = (y * parts.shape[2] + x).expand_as(parts)
    return parts.flatten(1).gather(1, places.flatten(1)).view_as(parts)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Nearest whole places, 0 to size - 1, mirrored at the centres of the border pixels."""
    return size - 1 - ((places + 0.5).floor().long().abs() % (2 * size - 2) - (size - 1)).abs()


# A transform each: its draw as numbers, and a batch with those of each picture, values (B,n).


def _flip(images: Tensor, parts: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    return images.flip(3), parts.flip(2)


def _affine_numbers(transform: Any) -> Sequence[float]:
    return np.linalg.inv(transform.params["matrix"])[:2].ravel().tolist()


def _affine(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    columns, rows = _columns_and_rows(parts)
    a, b, c, d, e, f = values[:, :, None, None].unbind(1)
    x, y = a * columns + b * rows + c, d * columns + e * rows + f  # (B,H,W)
    return _bilinear(images, x, y), _pixels_at(parts, _mirrored(x, parts.shape[2]), _mirrored(y, parts.shape[1]))


def _crop_numbers(transform: Any) -> Sequence[float]:
    return transform.params["crop_coords"]


def _crop(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    left, top, right, bottom = values.long()[:, :, None].unbind(1)  # each (B,1)
    height, width = parts.shape[1:]
    (x, column), (y, row) = _enlarged(left, right, width), _enlarged(top, bottom, height)
    image_x, image_y = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    return _bilinear(images, image_x, image_y), _pixels_at(parts, column[:, None, :], row[:, :, None])


def _enlarged(start: Tensor, end: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the pixels from start to end, enlarged to `size`, come from: places (B,size), and the nearest whole ones.

    A place halfway between two pixels is the later's; in OpenCV's INTER_NEAREST_EXACT it is either's.
    """
    old_size, steps = end - start, torch.arange(size, device=start.device)
    places = ((steps + 0.5) * old_size / size - 0.5).clamp(min=0).minimum(old_size - 1)
    return start + places, start + (2 * steps + 1) * old_size // (2 * size)


def _brightness_contrast_numbers(transform: Any) -> Sequence[float]:
    return transform.params["alpha"], transform.params["beta"]


def _brightness_contrast(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    alpha, beta = _per_image(values)
    return _truncated(images * alpha + beta), parts


def _jitter_numbers(transform: Any) -> Sequence[float]:
    """Three weightings before the change of hue, three after it, each (pixel, grey, mean grey, rounding); the hue."""
    brightness, contrast, saturation = (transform.params[name] for name in ("brightness", "contrast", "saturation"))
    weightings = (brightness, 0, 0, 0), (contrast, 0, 1 - contrast, 0), (saturation, 1 - saturation, 0, 0.5)
    order = list(transform.params["order"])
    before, after = order[: order.index(3)], order[order.index(3) + 1 :]
    idle = (1, 0, 0, 0)
    steps = [*(weightings[i] for i in before), *[idle] * 3, *(weightings[i] for i in after)]
    return *chain.from_iterable(steps), transform.params["hue"]


def _jitter(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    pixels, hue = images.float(), values[:, -1, None, None]
    for step, weights in enumerate(values[:, :-1].split(4, dim=1)):
        if step == 3:
            pixels = torch.where(hue[:, None] == 0, pixels, _with_hue_shifted(pixels, hue))
        own, grey_weight, mean_weight, rounding = _per_image(weights)
        grey = _grey(pixels)
        mean = grey.mean((2, 3), keepdim=True)
        pixels = (own * pixels + grey_weight * grey + mean_weight * mean + rounding).clamp(0, 255).floor()
    return pixels.to(torch.uint8), parts


def _with_hue_shifted(pixels: Tensor, turns: Tensor) -> Tensor:
    """Pixels (B,3,H,W) with their hue turned by turns (B,1,1): through OpenCV's 8-bit HSV.

    Its hue has 180 steps, its saturation 256, both by 12-bit fixed-point reciprocals, which are exact in float32.
    """
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    spread = value - pixels.amin(1)
    sector = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    hue = ((sector * (122880 / spread.clamp(min=1)).round() + 2048) / 4096).floor() % 180
    saturation = ((spread * (1044480 / value.clamp(min=1)).round() + 2048) / 4096).floor() / 255
    hue = ((hue + 180 * turns) % 180).floor()
    channels = []
    for offset in (5, 3, 1):
        ramp = (hue / 30 + offset) % 6
        channels.append(value - value * saturation * ramp.minimum(4 - ramp).clamp(0, 1))
    return torch.stack(channels, dim=1).floor()  # as OpenCV's vector code does


def _to_grey(images: Tensor, parts: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    return _grey(images.float()).to(torch.uint8).expand_as(images), parts


def _blur_numbers(transform: Any) -> Sequence[float]:
    """The kernel, in the middle of the largest that may be drawn."""
    smallest, largest = transform.blur_limit
    from_sigma = int(transform.sigma_limit[1] * 3.5) * 2 + 1 if smallest == 0 else 1
    kernel = transform.params["kernel"]
    margin = (max(largest // 2 * 2 + 1, from_sigma) - len(kernel)) // 2
    return np.pad(kernel, margin).tolist()


def _blur(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    height, width = parts.shape[1:]
    weights, reach = list(_per_image(values)), values.shape[1] // 2
    pixels = pad(images.float(), (reach,) * 4, mode="reflect")
    for dim, size in ((2, height), (3, width)):
        pixels = reduce(torch.add, (w * pixels.narrow(dim, i, size) for i, w in enumerate(weights)))
    return _rounded(pixels), parts


def _draw_noise(transform: Any, **_: Any) -> dict[str, Any]:
    """In the place of `get_params_dependent_on_data`: the same draws, in its order, without the noise itself."""
    std = transform.py_random.uniform(*transform.std_range)
    mean = transform.py_random.uniform(*transform.mean_range)
    return {"mean": mean, "std": std, "seed": transform.random_generator.integers(0, 2**16)}


def _noise_numbers(transform: Any) -> Sequence[float]:
    return transform.params["mean"] * 255, transform.params["std"] * 255, transform.params["seed"]


def _noise(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    mean, std, seed = _per_image(values)
    _, channels, height, width = images.shape
    counter = torch.arange(height * width * channels, device=images.device).view(height, width, channels)
    bits = _hashed((_hashed(counter.permute(2, 0, 1)) + _hashed(seed.long() + 1)) & 0xFFFFFFFF)
    normal = torch.erfinv(((bits >> 8) - 2**23 + 0.5) / 2**23) * 2**0.5
    return _truncated(images + (mean + std * normal).trunc()), parts


def _hashed(numbers: Tensor) -> Tensor:
    """Whole numbers of 32 bits, int64, to the same, scattered (C. Wellons, hash-prospector)."""
    numbers = ((numbers ^ (numbers >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    numbers = ((numbers ^ (numbers >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return numbers ^ (numbers >> 15)


def _holes_numbers(transform: Any) -> Sequence[float]:
    """What fills pixels, what fills parts (-1: nothing does), and as many holes as may be drawn."""
    holes, fill_mask = transform.params["holes"], transform.fill_mask
    holes = np.pad(holes, ((0, transform.num_holes_range[1] - len(holes)), (0, 0)))
    return int(transform.fill), -1 if fill_mask is None else int(fill_mask), *holes.ravel().tolist()


def _holes(images: Tensor, parts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    columns, rows = _columns_and_rows(parts)
    fill, fill_parts = values[:, :2].to(torch.int16)[:, :, None, None].unbind(1)  # each (B,1,1)
    left, top, right, bottom = values[:, 2:].unflatten(1, (-1, 4))[..., None, None].unbind(2)  # each (B,n,1,1)
    hidden = ((columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)).any(1)  # (B,H,W)
    new_images = torch.where(hidden[:, None], fill[:, None].to(torch.uint8), images)
    return new_images, torch.where(hidden & (fill_parts >= 0), fill_parts.to(torch.uint8), parts)


@dataclass(frozen=True)
class Counterpart:
    """A transform on the device.

    apply: images, parts and values (B,n) to new images and parts; numbers: a transform, after its draw, to the
    row of n values; needs: settings it holds for, by value or type; draw: instead of one that computes pixels.
    """

    apply: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    numbers: Callable[[Any], Sequence[float]] | None = None
    needs: dict[str, Any] = field(default_factory=dict)
    draw: Callable[..., dict[str, Any]] | None = None


LINEAR = {"interpolation": cv2.INTER_LINEAR}
COUNTERPARTS: dict[type, Counterpart] = {
    A.HorizontalFlip: Counterpart(_flip),
    A.Affine: Counterpart(
        _affine, _affine_numbers, LINEAR | {"border_mode": cv2.BORDER_REFLECT_101, "fit_output": False}
    ),
    A.RandomResizedCrop: Counterpart(_crop, _crop_numbers, LINEAR | {"area_for_downscale": None}),
    A.RandomBrightnessContrast: Counterpart(
        _brightness_contrast, _brightness_contrast_numbers, {"brightness_by_max": True}
    ),
    A.ColorJitter: Counterpart(_jitter, _jitter_numbers),
    A.ToGray: Counterpart(_to_grey, needs={"method": "weighted_average", "num_output_channels": 3}),
    A.GaussianBlur: Counterpart(_blur, _blur_numbers),
    A.GaussNoise: Counterpart(_noise, _noise_numbers, {"per_channel": True, "noise_scale_factor": 1}, _draw_noise),
    A.CoarseDropout: Counterpart(_holes, _holes_numbers, {"fill": Real, "fill_mask": Real | NoneType}),
}
