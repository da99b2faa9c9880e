"""Racks on both sides of the aisle: decks, uprights, cartons, posters, and a few labelled solids among the goods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anydepth_perception.aisle.geometry import boxes, patch
from anydepth_perception.aisle.posters import poster
from anydepth_perception.aisle.solids import BARREL, CONE, CRATE, LABELLED, PALLET, palette, textured

DEPTH_M = 1.1
BAY_M = 2.8
BAYS = 8
"""Bays in one block, the unit in which racks are drawn from the seed."""
BLOCK_M = BAY_M * BAYS
KEYS_PER_BAY = 100
LABELLED_SHARE = 0.04
"""Share of places in the racks that hold a labelled solid."""


@dataclass
class Item:
    """A solid in the world: quads [F,4,3], colours [F,3] in [0,1], parts [F], and how it is drawn.

    `label` is a class id, or -1. `key` is its place in the painter's order (None: by distance).
    `shadow` is (half width, half depth, height) in metres of what it casts on the floor, or None.
    """

    quads: np.ndarray
    colours: np.ndarray
    parts: np.ndarray
    label: int
    position: np.ndarray
    key: float | None = None
    shadow: tuple[float, float, float] | None = None


@dataclass
class Racks:
    """One block of racks: unlabelled quads [F,4,3] with colours [F,3] and painter's keys [F].

    `goods` are the (side, bay, level, place) in which labelled solids stand.
    """

    quads: np.ndarray
    colours: np.ndarray
    keys: np.ndarray
    goods: list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class RackStyle:
    """What the racks of one scene have in common: metres, colours in [0,1], and the eye height they are sorted for."""

    half_width_m: float
    levels_m: np.ndarray
    top_m: float
    steel: np.ndarray
    beam: np.ndarray
    fill: float
    eye_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator, half_width_m: float, eye_m: float) -> RackStyle:
        """A random style of rack."""
        first = rng.uniform(0.08, 0.2)
        levels = first + np.arange(3) * rng.uniform(1.25, 1.7)
        colours = palette(rng)
        return cls(half_width_m, levels, levels[-1] + 1.3, colours[0] * 0.8, colours[1], rng.uniform(0.6, 0.95), eye_m)

    def order(self, level: int, contents: bool) -> int:
        """Painter's order 1..2L of a deck or what stands on it: from both ends towards the level of the eye."""
        above = [i for i in reversed(range(len(self.levels_m))) if self.levels_m[i] > self.eye_m]
        if level in above:
            return 1 + 2 * above.index(level) + (not contents)
        return 1 + 2 * len(above) + 2 * level + contents


Faces = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
"""Pieces of a rack to be concatenated: quads [.,4,3], colours [.,3], painter's keys [.]."""


def _shelves(style: RackStyle, bays: np.ndarray, side: int) -> Faces:
    """Back panels, decks and uprights of one side."""
    starts = bays * BAY_M
    num, centre = len(bays), starts + BAY_M / 2
    base = -bays * KEYS_PER_BAY
    middle = side * (style.half_width_m + DEPTH_M / 2)
    inner = 0 if side > 0 else 1
    quads: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    keys: list[np.ndarray] = []

    def add(solids: np.ndarray, colour: np.ndarray, order: float) -> None:
        quads.append(solids.reshape(-1, 4, 3))
        faces = solids.shape[1]
        colours.append(np.broadcast_to(colour, (num * faces, 3)))
        keys.append(np.repeat(base + order, faces))

    def block(x: float, y: float, z: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
        centres = np.stack([np.full(num, x), np.full(num, y), z], 1)
        return boxes(centres, np.broadcast_to(size, (num, 3)))

    back = block(side * (style.half_width_m + DEPTH_M), style.top_m / 2, centre, (0.02, style.top_m, BAY_M))
    add(back[:, [inner]], style.steel * 0.3, 0)
    for level, height in enumerate(style.levels_m):
        deck = block(middle, height - 0.05, centre, (DEPTH_M, 0.1, BAY_M))
        order = style.order(level, False) * 10
        add(deck[:, [2, 3]], style.steel * 0.55, order)
        add(deck[:, [inner]], style.beam, order)
    upright = block(side * (style.half_width_m + 0.05), style.top_m / 2, starts, (0.1, style.top_m, 0.1))
    add(upright[:, [inner, 4]], style.steel, 90)
    return quads, colours, keys


def _cartons(
    style: RackStyle, rng: np.random.Generator, slots: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain cartons with a strip of tape or a sticker in slots [N,3] of (bay, level, place)."""
    num = len(slots)
    bay, level, place = slots.T
    size = rng.uniform((0.5, 0.3, 0.45), (0.95, 1.05, 0.88), (num, 3))
    z = (bay + (place + 0.5) / 3) * BAY_M + rng.uniform(-0.03, 0.03, num)
    x = side * (style.half_width_m + DEPTH_M / 2 + rng.uniform(-0.05, 0.1, num))
    centres = np.stack([x, style.levels_m[level] + size[:, 1] / 2, z], 1)
    faces = boxes(centres, size)[:, [0 if side > 0 else 1, 4, 3]]
    hue = rng.uniform(-1, 1, (num, 3)) * rng.choice([0.05, 0.25], (num, 1))
    colour = np.clip(np.array([0.62, 0.5, 0.38]) * rng.uniform(0.5, 1.35, (num, 1)) + hue, 0.05, 1)
    low, left = rng.uniform(0.05, 0.6, 2)
    sides = faces[:, :2]
    marks = np.concatenate([patch(sides, 0.0, 0.46, 1.0, 0.54), patch(sides, low, left, low + 0.3, left + 0.3)], 1)
    marked = rng.random(num) < 0.45
    tint = np.clip(colour + rng.uniform(-0.35, 0.35, (num, 3)), 0.05, 1)
    orders = np.array([style.order(i, True) for i in range(len(style.levels_m))])[level] * 10
    keys = -bay * KEYS_PER_BAY + orders + (2 - place) * 2.0
    chosen = np.where(rng.random(num) < 0.5, 0, 2)[marked]
    rows = np.flatnonzero(marked)
    marks = np.stack([marks[rows, chosen], marks[rows, chosen + 1]], 1)
    return (
        np.concatenate([faces.reshape(-1, 4, 3), marks.reshape(-1, 4, 3)]),
        np.concatenate([np.repeat(colour, 3, 0), np.repeat(tint[marked], 2, 0)]),
        np.concatenate([np.repeat(keys, 3), np.repeat(keys[marked] + 0.5, 2)]),
    )


def build_block(style: RackStyle, rng: np.random.Generator, block: int) -> Racks:
    """Racks of both sides for bays [8 * block, 8 * block + 8)."""
    bays = np.arange(block * BAYS, (block + 1) * BAYS)
    faces: Faces = ([], [], [])
    quads, colours, keys = faces
    goods_here: list[tuple[int, int, int, int]] = []
    grid = np.meshgrid(bays, np.arange(len(style.levels_m)), np.arange(3), indexing="ij")
    slots = np.stack(grid, -1).reshape(-1, 3)
    for side in (-1, 1):
        for target, values in zip(faces, _shelves(style, bays, side), strict=True):
            target.extend(values)
        kind = rng.random(len(slots))
        cartons = _cartons(style, rng, slots[(kind < style.fill) & (kind > LABELLED_SHARE)], side)
        for target, value in zip(faces, cartons, strict=True):
            target.append(value)
        goods_here.extend((side, *slot) for slot in slots[kind <= LABELLED_SHARE].tolist())
        for bay in bays[rng.random(BAYS) < 0.12]:
            width, height = rng.uniform(0.6, 1.2), rng.uniform(0.7, 1.3)
            x, y, z = side * (style.half_width_m - 0.02), rng.uniform(1.0, 2.4), (bay + 0.5) * BAY_M
            picture, tints = poster(rng)
            along = picture[..., :1] * width * -side
            quads.append(np.concatenate([np.full_like(along, x), y + picture[..., 1:] * height, z + along], -1))
            colours.append(tints)
            keys.append(np.full(len(picture), -bay * KEYS_PER_BAY + 95.0))
    return Racks(np.concatenate(quads), np.concatenate(colours), np.concatenate(keys).astype(float), goods_here)


def build_goods(style: RackStyle, rng: np.random.Generator, side: int, bay: int, level: int, place: int) -> Item:
    """The labelled solid in one place of a rack."""
    label = int(rng.choice([PALLET, CRATE, BARREL, CONE]))
    mesh = LABELLED[label](rng.random(6), 0.0, False, 1)
    position = np.array([side * (style.half_width_m + 0.5), style.levels_m[level], (bay + (place + 0.5) / 3) * BAY_M])
    key = -bay * KEYS_PER_BAY + style.order(level, True) * 10 + (2 - place) * 2.0
    quads = mesh.placed(position, np.pi / 2 + rng.normal(0, 0.1))
    return Item(quads, textured(mesh, rng), mesh.parts, label, position, key)
