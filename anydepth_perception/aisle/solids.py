"""The solids of an aisle: six labelled classes told apart by shape, and unlabelled distractors."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from anydepth_perception.aisle.geometry import (
    ACCENT,
    BASE,
    DARK,
    SECONDARY,
    Mesh,
    MeshBuilder,
    boxes,
    limbs,
    outward,
    patch,
    polygon,
    revolve,
    strip,
)

CLASS_NAMES = ("person", "forklift", "pallet", "crate", "barrel", "cone")
"""Labelled classes, in the order of their ids (from 0)."""

PERSON, FORKLIFT, PALLET, CRATE, BARREL, CONE = range(len(CLASS_NAMES))

SATURATIONS = np.array([0.08, 0.35, 0.65, 0.9])


def palette(rng: np.random.Generator) -> np.ndarray:
    """Colours [4,3] (RGB in [0,1]) of one object by role; the same distribution for every solid."""
    hue = rng.random(3)[:, None] + np.array([0, 2 / 3, 1 / 3])
    pure = np.minimum(np.maximum(np.abs((hue % 1) * 6 - 3) - 1, 0), 1)
    saturation = SATURATIONS[rng.integers(4, size=(3, 1))] * rng.uniform(0.7, 1, (3, 1))
    colours = rng.uniform(0.25, 0.95, (3, 1)) * (1 - saturation + saturation * pure)
    return np.concatenate([colours, colours[1:2] * 0.35])


def textured(mesh: Mesh, rng: np.random.Generator) -> np.ndarray:
    """Colours [F,3] of a mesh's faces: a random palette and one of four random textures.

    Takes the same number of draws from `rng` whatever the mesh, so that its detail changes nothing else.
    """
    rng = np.random.default_rng(rng.integers(2**32))
    colours = palette(rng)
    style = rng.integers(4)
    roles = mesh.roles
    if style == 1:
        heights = mesh.quads[:, :, 1].mean(1)
        limit = rng.uniform(0.2, 0.8) * heights.max()
        roles = np.where((roles == BASE) & (heights > limit), SECONDARY, roles)
    elif style == 2:
        roles = np.where((roles == BASE) & (rng.random(len(roles)) < 0.2), ACCENT, roles)
    strength = (0.03, 0.06, 0.05, 0.18)[style]
    return colours[roles] * (1 + strength * rng.uniform(-1, 1, (len(roles), 1)))


def person(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """An articulated person of 1.55-1.92 m facing +z; `shape` [6] in [0,1], `phase` in radians of the gait."""
    height, width = 1.55 + 0.37 * shape[0], 0.9 + 0.35 * shape[1]
    swing = (0.35 + 0.2 * shape[2]) * np.sin(phase) if walking else 0.06 * (shape[2] - 0.5)
    lift = 0.6 * max(0.0, np.cos(phase)) if walking else 0.0
    lift_other = 0.6 * max(0.0, -np.cos(phase)) if walking else 0.0
    carry = 1.3 * shape[4] if shape[3] > 0.7 else 0.0

    def bend(angle: float) -> np.ndarray:
        return np.array([0.0, -np.cos(angle), np.sin(angle)])

    hip, shoulder = np.array([0.09 * width, 0.5, 0.0]), np.array([0.165 * width, 0.8, 0.0])
    mirror = np.array([-1.0, 1.0, 1.0])
    out = np.array([0.03, 0.0, 0.0])
    starts, ends, start_radii, end_radii = [], [], [], []

    def limb(start: np.ndarray, end: np.ndarray, first: tuple[float, float], last: tuple[float, float]) -> None:
        starts.append(start)
        ends.append(end)
        start_radii.append(first)
        end_radii.append(last)

    for side, angle, knee in ((1, swing, lift), (-1, -swing, lift_other)):
        flip = mirror if side < 0 else 1.0
        joint = hip * flip + 0.255 * bend(angle)
        limb(hip * flip, joint, (0.062, 0.062), (0.045, 0.045))
        limb(joint, joint + 0.245 * bend(angle - knee), (0.045, 0.045), (0.034, 0.045))
        elbow = shoulder * flip + 0.17 * bend(carry - angle) + out * flip
        limb(shoulder * flip, elbow, (0.038, 0.04), (0.03, 0.032))
        limb(elbow, elbow + 0.17 * bend(carry - angle + 0.3 + carry * 0.4), (0.03, 0.032), (0.024, 0.026))
    body, neck = 0.13 * width, 0.165 * width
    limb(np.array([0, 0.47, 0]), np.array([0, 0.79, 0]), (body, 0.075), (neck, 0.085))
    limb(np.array([0, 0.79, 0]), np.array([0, 0.85, 0]), (neck, 0.085), (0.05, 0.05))
    limb(np.array([0, 0.84, 0]), np.array([0, 0.925, 0.005]), (0.036, 0.04), (0.055, 0.062))
    limb(np.array([0, 0.925, 0.005]), np.array([0, 1.0, 0]), (0.062, 0.07), (0.03, 0.03))
    prisms = limbs(np.array(starts), np.array(ends), np.array(start_radii), np.array(end_radii), 5 + detail)
    roles = np.array([SECONDARY, SECONDARY, BASE, BASE] * 2 + [BASE, BASE, ACCENT, DARK])
    builder = MeshBuilder()
    builder.add(prisms * height, np.repeat(roles[:, None], prisms.shape[1], 1))
    return builder.build()


def forklift(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """A counterbalance truck facing +z: body, cage, mast, forks, wheels; about 1.1 x 2.1 x 2.7 m."""
    width, height, lift = 1.0 + 0.25 * shape[0], 1.95 + 0.35 * shape[1], 0.08 + 0.5 * shape[2] * (shape[3] > 0.5)
    half = width / 2
    builder = MeshBuilder()
    builder.add(boxes([[0, 0.55, -0.35]], [[width, 0.62, 1.2]]), BASE)
    builder.add(boxes([[0, 0.62, -1.1]], [[width * 0.94, 0.8, 0.4]]), SECONDARY)
    builder.add(boxes([[0, 0.45, 0.45]], [[width * 0.9, 0.4, 0.45]]), BASE)
    builder.add(boxes([[0, 1.02, -0.5]], [[0.5, 0.4, 0.45]]), DARK)
    posts = [[s * (half - 0.05), 0.5 * (0.85 + height), z] for s in (-1, 1) for z in (-0.9, 0.35)]
    builder.add(boxes(posts, [[0.08, height - 0.85, 0.08]] * 4), DARK)
    builder.add(boxes([[0, height, -0.28]], [[width, 0.08, 1.4]]), BASE)
    top = height + 0.12 + 0.5 * shape[4] * (shape[3] > 0.5)
    mast = [[s * 0.3, top / 2 + 0.06, 0.78] for s in (-1, 1)]
    builder.add(boxes(mast, [[0.1, top - 0.12, 0.14]] * 2), SECONDARY)
    bars = [[0, y, 0.8] for y in (0.3 + lift, 0.65 + lift, top - 0.05)]
    builder.add(boxes(bars, [[0.8, 0.1, 0.1]] * 3), SECONDARY)
    forks = [[s * 0.26, lift, 1.35] for s in (-1, 1)]
    builder.add(boxes(forks, [[0.13, 0.06, 1.05]] * 2), ACCENT)
    for z, radius in ((0.42, 0.3), (-0.85, 0.25)):
        for side in (-1, 1):
            wheel = _unit_wheel(side, 7 + 2 * detail)
            builder.add(wheel * (0.18, radius, radius) + (side * (half - 0.14), radius, z), DARK)
    return builder.build()


@functools.cache
def _unit_wheel(side: int, sides: int) -> np.ndarray:
    wheel = revolve([1, 1], [0, 1], sides)[..., [1, 0, 2]] * (side, 1, 1)
    return outward(wheel, (side / 2, 0.0, 0.0))


def pallet(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """One to three slatted decks on blocks, 1.05-1.35 x 0.15-0.5 x 0.8-1.0 m."""
    unit = _unit_pallet(1 + int(3 * shape[3] ** 1.5), detail)
    return unit.scaled(1.05 + 0.3 * shape[0], 0.15 + 0.03 * shape[2], 0.8 + 0.2 * shape[1])


@functools.cache
def _unit_pallet(decks: int, detail: int) -> Mesh:
    builder = MeshBuilder()
    slats = 5
    for floor in range(decks):
        blocks = [[x * 0.44, floor + 0.42, 0] for x in (-1, 0, 1)]
        builder.add(boxes(blocks, [[0.1, 0.6, 1]] * 3), BASE)
        if detail:
            low = [[0, floor + 0.1, z * 0.44] for z in (-1, 1)]
            builder.add(boxes(low, [[1, 0.2, 0.11]] * 2), SECONDARY)
        rows = [[0, floor + 0.86, (i - (slats - 1) / 2) / slats] for i in range(slats)]
        builder.add(boxes(rows, [[1, 0.22, 0.68 / slats]] * slats), SECONDARY)
    return builder.build()


def crate(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """A cube of planks, 0.55-1.05 m, with a frame and one or two diagonal braces on its sides."""
    size = 0.55 + 0.5 * shape[0]
    unit = _unit_crate(bool(shape[3] > 0.5), bool(shape[4] > 0.6), detail)
    return unit.scaled(size, size * (0.8 + 0.35 * shape[1]), size * (0.9 + 0.3 * shape[2]))


@functools.cache
def _unit_crate(rising: bool, crossed: bool, detail: int) -> Mesh:
    builder = MeshBuilder()
    cube = boxes([[0, 0.5, 0]], [[1, 1, 1]])
    builder.add(cube, BASE)
    sides, edge = cube[0][[0, 1, 3, 4, 5]], 0.13
    if detail:
        for line in (0.36, 0.64):
            builder.decorate(patch(sides, 0, line - 0.02, 1, line + 0.02), DARK)
    low, high = edge, 1 - edge
    if rising or crossed:
        builder.decorate(strip(sides, (low, low), (high, high), 0.1), SECONDARY)
    if not rising or crossed:
        builder.decorate(strip(sides, (low, high), (high, low), 0.1), SECONDARY)
    for u0, v0, u1, v1 in ((0, 0, 1, low), (0, high, 1, 1), (0, 0, low, 1), (high, 0, 1, 1)):
        builder.decorate(patch(sides, u0, v0, u1, v1), SECONDARY)
    return builder.build()


def barrel(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """An upright cylinder with rings, or a bulging one, 0.52-0.7 m across and 0.8-1.0 m high."""
    radius = 0.26 + 0.07 * shape[0]
    return _unit_barrel(bool(shape[2] > 0.6), detail).scaled(radius, 0.8 + 0.22 * shape[1], radius)


@functools.cache
def _unit_barrel(bulging: bool, detail: int) -> Mesh:
    sides, bulge, lip = 8 + 4 * detail, 0.12 * bulging, 0.05
    heights = [0.0, 0.05, 0.32, 0.37, 0.63, 0.68, 0.95, 1.0]
    body = revolve([1 + bulge * (0.1 < h < 0.9) for h in heights], heights, sides)
    bands = np.repeat([SECONDARY, BASE, SECONDARY, BASE, SECONDARY, BASE, SECONDARY], sides)
    lid = body[len(bands) :]
    builder = MeshBuilder()
    builder.add(body, np.concatenate([bands, np.full(len(lid), SECONDARY)]))
    builder.decorate(lid * (0.82, 1, 0.82), DARK)
    if detail:
        for low in heights[::2]:
            radius = 1 + bulge * (0.1 < low < 0.9) + lip
            builder.decorate(revolve([radius, radius], [low, low + 0.045], sides, capped=False), SECONDARY)
    return builder.build()


def cone(shape: np.ndarray, phase: float, walking: bool, detail: int) -> Mesh:
    """A striped traffic cone on a square base, 0.55-1.0 m high."""
    height = 0.55 + 0.45 * shape[0]
    foot = height * (0.23 + 0.05 * shape[1])
    return _unit_cone(bool(shape[2] > 0.4), detail).scaled(foot, height, foot)


@functools.cache
def _unit_cone(two_stripes: bool, detail: int) -> Mesh:
    sides = 7 + 4 * detail
    builder = MeshBuilder()
    builder.add(boxes([[0, 0.03, 0]], [[2.3, 0.06, 2.3]]), DARK)
    marks = [0.05, 0.35, 0.53, 0.68, 0.82, 1.0] if two_stripes else [0.05, 0.42, 0.7, 1.0]
    body = revolve([1 - 0.86 * m for m in marks], marks, sides)
    bands = np.repeat([BASE, SECONDARY, BASE, SECONDARY, BASE][: len(marks) - 1], sides)
    builder.add(body, np.concatenate([bands, np.full(len(body) - len(bands), DARK)]))
    return builder.build()


def sphere(shape: np.ndarray) -> Mesh:
    """Distractor: a ball of 0.3-0.8 m."""
    radius = 0.15 + 0.25 * shape[0]
    angles = np.linspace(-np.pi / 2, np.pi / 2, 7)
    builder = MeshBuilder()
    body = revolve(list(radius * np.cos(angles)), list(radius * (1 + np.sin(angles))), 10, capped=False)
    builder.add(body, np.repeat([BASE, BASE, SECONDARY, BASE, BASE, BASE], 10) if shape[1] > 0.5 else BASE)
    return builder.build()


def pipe(shape: np.ndarray) -> Mesh:
    """Distractor: a long cylinder lying across, 0.2-0.5 m thick."""
    radius, length = 0.1 + 0.14 * shape[0], 1.4 + 1.2 * shape[1]
    body = revolve([radius, radius], [0, length], 9)
    lying = outward(body[..., [1, 0, 2]] - (length / 2, 0, 0), (0.0, 0.0, 0.0))
    cap = lying[9:] * (-1, 1, 1)
    builder = MeshBuilder()
    body = np.concatenate([lying, cap[:, ::-1]]) + np.array([0, radius, 0])
    builder.add(body, np.repeat([BASE, DARK], [9, 2 * len(cap)]))
    return builder.build()


def wedge(shape: np.ndarray) -> Mesh:
    """Distractor: a ramp, 0.25-0.6 m high."""
    width, height, depth = 0.6 + 0.5 * shape[0], 0.25 + 0.35 * shape[1], 0.8 + 0.7 * shape[2]
    low = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]) * (width / 2, 0, depth / 2)
    a, b, c, d = low
    up = np.array([0, height, 0])
    quads = np.array([[d, c, c + up, d + up], [a, b, c + up, d + up], [a, d, d + up, a], [b, c, c + up, b]])
    builder = MeshBuilder()
    builder.add(outward(quads, (0, height * 0.3, depth * 0.15)), np.array([BASE, SECONDARY, BASE, BASE]))
    return builder.build()


def cabinet(shape: np.ndarray) -> Mesh:
    """Distractor: a tall locker with doors, or a low bench."""
    width, height, depth = 0.6 + 0.6 * shape[0], 1.5 + 0.5 * shape[1], 0.45 + 0.2 * shape[2]
    body = boxes([[0, height / 2, 0]], [[width, height, depth]])
    builder = MeshBuilder()
    builder.add(body, BASE)
    fronts = body[0][4:6]
    for u in (0.08, 0.54):
        builder.decorate(patch(fronts, 0.06, u, 0.94, u + 0.38), SECONDARY)
    return builder.build()


def hexagon_bin(shape: np.ndarray) -> Mesh:
    """Distractor: a low open tub that widens upwards."""
    radius, height = 0.3 + 0.15 * shape[0], 0.3 + 0.12 * shape[1]
    builder = MeshBuilder()
    body = revolve([radius * 0.75, radius, radius * 1.06], [0, height * 0.85, height], 6, capped=False)
    builder.add(body, np.repeat([BASE, SECONDARY], 6))
    rim = body[6:][:, 1]
    builder.decorate(polygon(rim * (0.95, 1, 0.95)), DARK)
    return builder.build()


Solid = Callable[[np.ndarray, float, bool, int], Mesh]
LABELLED: tuple[Solid, ...] = (person, forklift, pallet, crate, barrel, cone)
"""Builders by class id: (shape [6] in [0,1], gait phase, walking, detail 0 or 1) -> Mesh."""

DISTRACTORS: tuple[Callable[[np.ndarray], Mesh], ...] = (sphere, pipe, wedge, cabinet, hexagon_bin)
"""Builders of unlabelled solids: shape [6] in [0,1] -> Mesh."""
