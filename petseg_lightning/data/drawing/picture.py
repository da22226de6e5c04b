"""Pictures of drawn pets: a place, a pet in it, often something in front, light, and the exact trimap."""

import cv2
import numpy as np
from PIL import Image

from petseg_lightning.data.drawing.backgrounds import BACKGROUNDS
from petseg_lightning.data.drawing.breeds import BREEDS, Breed, make_coat
from petseg_lightning.data.drawing.pen import Canvas, Pixels, blended, chosen, ellipse
from petseg_lightning.data.drawing.pets import POSES
from petseg_lightning.data.drawing.scene import OCCLUDERS, SHADOW, Scene

PET, BACKGROUND, BORDER = 1, 2, 3
BORDER_WIDTH = 0.075  # of the longer side; the real trimaps have 0.03 to 0.05
MIN_PET_SHARE = 0.02

_OVERSAMPLING = 3
_ASPECTS = (2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2)


def draw_picture(rng: np.random.Generator, breed: Breed, size: int) -> tuple[Pixels, Pixels]:
    """One picture of a pet of this breed.

    Args:
        rng: decides everything else.
        breed: of the pet.
        size: longer side in pixels.

    Returns:
        The picture, uint8 RGB (H, W, 3), and its trimap, uint8 (H, W) of PET, BACKGROUND and BORDER. At least
        MIN_PET_SHARE of the pixels are PET.
    """
    while True:
        canvas = _draw_scene(rng, breed, size)
        height, width = (side // _OVERSAMPLING for side in canvas.labels.shape)
        visible = cv2.resize(canvas.labels * 255, (width, height), interpolation=cv2.INTER_AREA) >= 128
        trimap = make_trimap(visible, BORDER_WIDTH * size)
        if np.mean(trimap == PET) >= MIN_PET_SHARE:
            break
    image = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    return _photographed(image, rng), trimap


def sample_picture(seed: int, size: int = 512) -> Image.Image:
    """A picture to show something with, where there are no others: RGB, `size` pixels at its longer side."""
    picture, _ = draw_picture(np.random.default_rng(seed), BREEDS[seed % len(BREEDS)], size)
    return Image.fromarray(picture)


def make_trimap(visible: np.ndarray, border_width: float) -> Pixels:
    """Trimap (H, W) of a visible pet, bool (H, W); the border of so many pixels is centred on its outline.

    The picture's own edges are no outline, as in Oxford-IIIT Pet.
    """
    inside, outside = (
        cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (visible, ~visible)
    )
    trimap = np.full(visible.shape, BORDER, dtype=np.uint8)
    trimap[inside > border_width / 2] = PET
    trimap[outside > border_width / 2] = BACKGROUND
    return trimap


def _draw_scene(rng: np.random.Generator, breed: Breed, size: int) -> Canvas:
    aspect = chosen(rng, _ASPECTS) * rng.uniform(0.95, 1.05)
    sides = np.array([min(1.0, 1 / aspect), min(1.0, aspect)])
    height, width = np.rint(size * sides).astype(int) * _OVERSAMPLING
    canvas = Canvas(np.zeros((height, width, 3), dtype=np.uint8))
    scene = Scene(canvas, rng)
    chosen(rng, BACKGROUNDS)(scene)

    pose = rng.choice(list(POSES), p=[0.27, 0.23, 0.19, 0.12, 0.19])
    x, foot, scale = _place(scene, pose)
    pet = scene.pen.at(x, foot, scale, rng.normal(0, 0.07), flip=bool(rng.random() < 0.5))
    coat = make_coat(pet, breed, rng)
    if rng.random() < 0.2:
        camouflage = np.full(canvas.labels.shape, rng.uniform(0.35, 0.65), dtype=np.float32)
        canvas.image = blended(canvas.image, coat.colour, camouflage)
    if rng.random() < 0.4:
        depth = chosen(rng, (3, 5, 7))
        canvas.image = cv2.blur(cv2.blur(canvas.image, (depth, depth)), (depth, depth))
    if pose != "portrait":
        scene.pen.glaze(ellipse(x, foot, 0.5 * scale, 0.07 * scale), SHADOW, 0.5, 0.08 * scale)
    canvas.mark = 1
    POSES[pose](pet, coat)
    canvas.mark = 0
    if rng.random() < 0.35 and pose != "portrait":
        chosen(rng, OCCLUDERS)(scene, x, foot, scale)
    return canvas


def _place(scene: Scene, pose: str) -> tuple[float, float, float]:
    """Where the pet is: x and y of its feet, and its height, in units of the longer side."""
    rng, shorter = scene.rng, min(scene.width, scene.height)
    if pose == "portrait":
        scale = shorter * rng.uniform(0.72, 1.1)
        return scene.width * rng.uniform(0.35, 0.65), scene.height + scale * rng.uniform(-0.15, 0.1), scale
    nearness = rng.random()
    scale = shorter * (0.45 + 0.53 * nearness)
    foot = scene.horizon + (scene.height - scene.horizon) * (0.25 + 0.7 * nearness)
    return scene.width * rng.uniform(0.3, 0.7), foot, scale


def _photographed(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture under a light that falls off to one side, with the grain of a sensor."""
    height, width = image.shape[:2]
    direction = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    light = 1 + rng.uniform(0, 0.18) * (np.cos(direction) * x + np.sin(direction) * y) - 0.07 * (x**2 + y**2)
    tint = rng.uniform(0.94, 1.06, 3) * rng.uniform(0.85, 1.05)
    grain = rng.normal(0, rng.uniform(1, 4), image.shape)
    return np.clip(np.rint(image * light[..., None] * tint + grain), 0, 255).astype(np.uint8)
