"""Meshes made of quadrilaterals: the primitives that every solid of an aisle is built from.

World axes: x to the right, y up, z along the aisle, in metres. A triangle is a quad that repeats a
corner. Every quad is wound such that the cross product of its diagonals points out of the solid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BASE, SECONDARY, ACCENT, DARK = range(4)
"""Colour roles: rows of an object's palette."""


def _unit_box() -> np.ndarray:
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float) / 2
    quads = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            quad = np.empty((4, 3))
            quad[:, axis] = side
            quad[:, (axis + 1) % 3], quad[:, (axis + 2) % 3] = signs[:, 0], signs[:, 1]
            quads.append(quad if side > 0 else quad[::-1])
    return np.array(quads)


UNIT_BOX = _unit_box()
"""Cube of side 1 around the origin, [6,4,3]; faces -x +x -y +y -z +z."""


@dataclass
class Mesh:
    """Quads [F,4,3] in metres, colour role [F] and convex part [F] of each."""

    quads: np.ndarray
    roles: np.ndarray
    parts: np.ndarray

    def scaled(self, x: float, y: float, z: float) -> Mesh:
        """The mesh stretched along each axis by a positive factor."""
        return Mesh(self.quads * (x, y, z), self.roles, self.parts)

    def placed(self, position: np.ndarray, yaw: float) -> np.ndarray:
        """Quads [F,4,3] turned by `yaw` radians about the vertical, then moved to `position` [3]."""
        cosine, sine = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        return self.quads @ turn + position


@dataclass
class MeshBuilder:
    """Collects primitives into one mesh; each `add` call is one or several convex parts."""

    quads: list[np.ndarray] = field(default_factory=list)
    roles: list[np.ndarray] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, quads: np.ndarray, roles: int | np.ndarray) -> None:
        """Add parts: `quads` [F,4,3] is one convex part, [P,F,4,3] is P of them; `roles` broadcasts to them."""
        if quads.ndim == 3:
            quads = quads[None]
        num_parts, num_faces = quads.shape[:2]
        roles = np.broadcast_to(roles, (num_parts, num_faces)) if np.ndim(roles) < 2 else np.asarray(roles)
        self.quads.append(quads.reshape(-1, 4, 3))
        self.roles.append(np.broadcast_to(roles, (num_parts, num_faces)).reshape(-1))
        self.parts.append(np.repeat(np.arange(self.count, self.count + num_parts), num_faces))
        self.count += num_parts

    def decorate(self, quads: np.ndarray, role: int) -> None:
        """Add flat decorations [F,4,3] that are drawn over the part added last."""
        self.quads.append(quads)
        self.roles.append(np.full(len(quads), role))
        self.parts.append(np.full(len(quads), self.count - 1))

    def build(self) -> Mesh:
        """The mesh of everything added."""
        return Mesh(np.concatenate(self.quads), np.concatenate(self.roles), np.concatenate(self.parts))


def boxes(centres: np.ndarray | list, sizes: np.ndarray | list) -> np.ndarray:
    """Axis-aligned boxes [P,6,4,3] from centres [P,3] and sizes [P,3]."""
    return UNIT_BOX * np.asarray(sizes, float)[:, None, None, :] + np.asarray(centres, float)[:, None, None, :]


def outward(quads: np.ndarray, centre: np.ndarray | tuple[float, float, float]) -> np.ndarray:
    """Quads [F,4,3] of a convex solid around `centre`, rewound where they pointed inwards."""
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    inward = ((quads.mean(1) - centre) * normals).sum(1) < 0
    return np.where(inward[:, None, None], quads[:, ::-1], quads)


def revolve(radii: list[float], heights: list[float], sides: int, capped: bool = True) -> np.ndarray:
    """Solid of revolution about the vertical: [(bands) * sides (+ cap), 4, 3], band by band, bottom up."""
    angles = np.arange(sides) * (2 * np.pi / sides)
    circle = np.stack([np.cos(angles), np.zeros(sides), np.sin(angles)], -1)
    rings = circle * np.asarray(radii, float)[:, None, None]
    rings[..., 1] = np.asarray(heights, float)[:, None]
    following = np.roll(rings, -1, 1)
    bands = np.stack([rings[:-1], rings[1:], following[1:], following[:-1]], 2).reshape(-1, 4, 3)
    if not capped:
        return bands
    return np.concatenate([bands, polygon(rings[-1])])


def polygon(points: np.ndarray) -> np.ndarray:
    """A convex polygon [N,3] seen from above as quads [.,4,3] that face upwards."""
    num = len(points)
    quads = []
    low, high = 0, num - 1
    while high - low >= 2:
        quads.append(points[[low, high, max(high - 1, low + 1), low + 1]])
        low, high = low + 1, high - 1
    return np.array(quads)


def limbs(
    starts: np.ndarray, ends: np.ndarray, start_radii: np.ndarray, end_radii: np.ndarray, sides: int
) -> np.ndarray:
    """Tapered prisms [P,sides,4,3] between points [P,3]; radii [P,2] are across x and across the rest."""
    axis = ends - starts
    across = np.array([1.0, 0.0, 0.0])
    other = np.cross(axis, across)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    angles = np.arange(sides) * (2 * np.pi / sides)
    cosine, sine = np.cos(angles)[None, :, None], np.sin(angles)[None, :, None]

    def ring(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
        first, second = radii[:, None, :1] * cosine * across, radii[:, None, 1:] * sine * other[:, None]
        return centre[:, None] + first + second

    low, high = ring(starts, start_radii), ring(ends, end_radii)
    return np.stack([low, np.roll(low, -1, 1), np.roll(high, -1, 1), high], 2)


def _within(quads: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Quads [...,4,3] at four (u, v) fractions of the sides of each of `quads` [...,4,3]."""
    u, v = np.array(corners).T
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], 1)
    return weights @ quads


def patch(quads: np.ndarray, u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
    """Parts of `quads` [...,4,3] between the fractions (u0, v0) and (u1, v1) of their sides, [...,4,3]."""
    return _within(quads, [(u0, v0), (u1, v0), (u1, v1), (u0, v1)])


def strip(
    quads: np.ndarray, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> np.ndarray:
    """A diagonal strip across quads [...,4,3] from one (u, v) to another, [...,4,3]."""
    (u0, v0), (u1, v1) = start, end
    return _within(quads, [(u0, v0 - half_width), (u1, v1 - half_width), (u1, v1 + half_width), (u0, v0 + half_width)])
