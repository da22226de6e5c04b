"""The places in which pets are drawn."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from petseg_lightning.data.drawing.breeds import BREEDS, WHITE
from petseg_lightning.data.drawing.pen import blended, box, chosen, ellipse, limb, spline
from petseg_lightning.data.drawing.scene import (
    GREENS,
    LEAVES,
    PETALS,
    SHADOW,
    SKIES,
    TEXTILES,
    WALLS,
    WOODS,
    Scene,
    blade,
    draw_ball,
    draw_cushion,
    draw_flower,
    draw_plant,
    draw_things,
    leaf,
    toned,
)

# ---- backgrounds -------------------------------------------------------------------------------------------


def _draw_sky(scene: Scene) -> None:
    scene.fill(0, scene.horizon, (scene.pick(SKIES), (232, 234, 228)), 6, 0.3)
    for x, y in scene.scatter(3, 0.02, 0.7 * scene.horizon):
        puffs = [ellipse(x + 0.05 * i, y - 0.02 * (i % 2), 0.06, 0.03) for i in range(scene.rng.integers(2, 5))]
        scene.pen.paint(puffs, (248, 248, 246), 0.1)


def _meadow(scene: Scene) -> None:
    rng, pen = scene.rng, scene.pen
    _draw_sky(scene)
    for x in rng.uniform(0, scene.width, 3):
        hill = ellipse(x, scene.horizon + 0.05, rng.uniform(0.3, 0.6), rng.uniform(0.09, 0.2))
        pen.paint(hill, scene.pick(((122, 160, 110), (96, 140, 112), (146, 172, 130))), 0.2)
    grass = scene.pick(GREENS)
    scene.fill(scene.horizon, scene.height, (toned(grass, 1.12), toned(grass, 0.85)), 14)
    for x, y in scene.scatter(150, scene.horizon, scene.height + 0.06):
        pen.paint(blade(scene, x, y, 0.08 * scene.nearness(y)), toned(grass, rng.uniform(0.75, 1.25)))
    for x, y in scene.scatter(int(rng.integers(14)), scene.horizon + 0.03, scene.height):
        draw_flower(scene, x, y, 0.014 * scene.nearness(y))
    draw_things(scene, (draw_ball, draw_cushion), 1)


def _autumn(scene: Scene) -> None:
    _draw_sky(scene)
    for x in scene.rng.uniform(0, scene.width, 6):
        trunk = scene.pick(WOODS)
        scene.pen.paint(limb([(x, -0.1, 0.02), (x, scene.horizon + 0.03, 0.035)]), toned(trunk, 0.7), 0.4)
        crown = ellipse(x, 0, scene.rng.uniform(0.1, 0.25), scene.rng.uniform(0.08, 0.2))
        scene.pen.paint(crown, scene.pick(LEAVES), 0.3)
    earth = scene.pick(((136, 108, 76), (112, 96, 72), (150, 120, 84)))
    scene.fill(scene.horizon, scene.height, (earth, toned(earth, 0.85)), 14)
    for x, y in scene.scatter(170, scene.horizon, scene.height):
        scene.pen.paint(leaf(scene, x, y, 0.035 * scene.nearness(y)), scene.pick(LEAVES), 0.2)


def _open_ground(scene: Scene) -> None:
    """Snow or sand under the sky."""
    _draw_sky(scene)
    ground = scene.pick(((236, 238, 244), (222, 196, 150), (206, 178, 138)))
    scene.fill(scene.horizon, scene.height, (toned(ground, 0.92), ground), 6, 0.012)
    for x, y in scene.scatter(6, scene.horizon, scene.height):
        scene.pen.glaze(ellipse(x, y, 0.25, 0.03), toned(ground, 0.82), 0.7, 0.05)
    draw_things(scene, (draw_ball, draw_cushion), 2)


def _draw_wall(scene: Scene) -> None:
    rng, pen = scene.rng, scene.pen
    wall, spacing = scene.pick(WALLS), rng.uniform(0.05, 0.12)
    scene.fill(0, scene.horizon, (wall, toned(wall, 0.92)), 4)
    columns, rows = (np.arange(spacing / 2, end, spacing) for end in (scene.width, scene.horizon))
    paper = rng.random()
    if paper < 0.35:
        pen.paint([box(x, 0, x + 0.4 * spacing, scene.horizon) for x in columns], toned(wall, 0.92))
    elif paper < 0.65:
        dots = [ellipse(x, y, 0.14 * spacing, 0.14 * spacing) for x in columns for y in rows]
        pen.paint(dots, toned(wall, 0.85))
    if rng.random() < 0.7:
        x, y = rng.uniform(0.1, scene.width), rng.uniform(0.05, 0.6) * scene.horizon
        width, height = rng.uniform(0.08, 0.2, 2)
        pen.paint(box(x - width - 0.02, y - height - 0.02, x + width + 0.02, y + height + 0.02), scene.pick(WOODS))
        view = pen.paint(box(x - width, y - height, x + width, y + height), scene.pick(SKIES), 0.15)
        pen.paint(ellipse(x, y + height, 0.9 * width, 0.8 * height), scene.pick(GREENS), 0.2, clip=view)


def _room(scene: Scene) -> None:
    rng, pen = scene.rng, scene.pen
    _draw_wall(scene)
    floor = scene.pick(WOODS)
    scene.fill(scene.horizon, scene.height, (toned(floor, 0.88), toned(floor, 1.1)), 7, 0.04)
    gaps = scene.horizon + (scene.height - scene.horizon) * np.linspace(0.1, 1, 6) ** 1.5
    pen.paint([box(0, y, scene.width, y + 0.005) for y in gaps], toned(floor, 0.75))
    joints = [box(x, y, x + 0.005, bottom) for y, bottom in pairwise(gaps) for x in rng.uniform(0, scene.width, 2)]
    pen.paint(joints, toned(floor, 0.75))
    pen.paint(box(0, scene.horizon - 0.035, scene.width, scene.horizon), WHITE, 0.15)
    if rng.random() < 0.5:
        y, rug = rng.uniform(scene.horizon + 0.1, scene.height), scene.pick(TEXTILES)
        for share, tone in ((1.0, 0.8), (0.93, 1.0), (0.72, 1.2), (0.62, 1.0)):
            pen.paint(ellipse(scene.width / 2, y, 0.55 * share, 0.16 * share), toned(rug, tone))
    draw_things(scene, (draw_plant, draw_ball, draw_cushion), 3)


def _sofa(scene: Scene) -> None:
    rng, pen = scene.rng, scene.pen
    _draw_wall(scene)
    cloth = scene.pick([*TEXTILES, *(breed.coat for breed in BREEDS)])
    top, seat = 0.45 * scene.horizon, scene.horizon + 0.05
    parts = 2 if scene.width < 0.9 else 3
    for part in range(parts):
        left, right = scene.width * np.array([part, part + 1]) / parts
        back = [
            (left, top),
            ((left + right) / 2, top - 0.03),
            (right, top),
            (right, seat + 0.1),
            (left, seat + 0.1),
        ]
        pen.paint(spline(back), cloth, 0.3)
    scene.fill(seat, scene.height, (toned(cloth, 1.06), toned(cloth, 0.85)), 8, 0.01)
    pen.glaze(box(0, seat - 0.02, scene.width, seat + 0.015), SHADOW, 0.5, 0.03)
    for x in rng.uniform(0, scene.width, rng.integers(3)):
        draw_cushion(scene, x, seat + rng.uniform(0.02, 0.1), rng.uniform(0.18, 0.32))


def _rug(scene: Scene) -> None:
    """A woven cloth that fills the picture."""
    cloth, thread = scene.pick(TEXTILES), scene.pick([*TEXTILES, WHITE])
    x, y = scene.pen.at(0, 0, scene.rng.uniform(0.06, 0.14), scene.rng.uniform(0, np.pi)).coordinates()
    x, y = x + 0.25 * scene.noise(0.2), y + 0.25 * scene.noise(0.2)
    stripes = [(np.sin(np.pi * axis) > 0.35).astype(np.float32) for axis in (x, y)]
    share = 0.35 * stripes[0] + (0.35 * stripes[1] if scene.rng.random() < 0.6 else 0)
    woven = blended(cloth, thread, share).astype(np.float32) * (1 + 0.07 * scene.noise(0.012, 2))[..., None]
    scene.pen.canvas.image[:] = np.clip(woven, 0, 255)


def _studio(scene: Scene) -> None:
    """A mottled or glittering backdrop."""
    backdrop, other = scene.pick([*WALLS, *TEXTILES]), scene.pick([*TEXTILES, *SKIES])
    share = np.clip(0.4 + 0.35 * scene.noise(0.3, octaves=5), 0, 1)
    scene.pen.canvas.image[:] = blended(backdrop, other, share)
    for x, y in scene.scatter(chosen(scene.rng, (0, 25)), 0, scene.height):
        light = ellipse(x, y, *[scene.rng.uniform(0.02, 0.06)] * 2)
        scene.pen.glaze(light, scene.pick([WHITE, *PETALS]), scene.rng.uniform(0.15, 0.5), 0.008)


BACKGROUNDS: tuple[Callable[[Scene], None], ...] = (
    _meadow, _autumn, _open_ground, _room, _room, _sofa, _rug, _studio,
)  # fmt: skip
