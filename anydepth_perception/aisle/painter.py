"""Paints quads into an RGB + id buffer from far to near, and reads exact visible boxes off the ids."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anydepth_perception.aisle.floor import haze_share
from anydepth_perception.aisle.pinhole import NEAR_M, PinholeCamera, clip_near
from anydepth_perception.aisle.racks import Item, Racks

SUBPIXEL_BITS = 3
AISLE_KEY = 1e6
"""Painter's keys of racks lie below it: nothing in a rack can hide what stands in the aisle."""


@dataclass(frozen=True)
class Light:
    """Direction [3] towards the light, ambient share, and the haze colour [3] in 0..255 that distance fades to."""

    direction: np.ndarray
    ambient: float
    haze: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """A random light from above, mostly from behind the camera."""
        direction = np.array([rng.uniform(-0.7, 0.7), 1.0, rng.uniform(-1.0, 0.1)])
        haze = rng.uniform(60, 200) * (1 + rng.uniform(-0.08, 0.08, 3))
        return cls(direction / np.linalg.norm(direction), rng.uniform(0.4, 0.6), haze)


@dataclass
class Painted:
    """A labelled item as drawn: its id in the buffer, and what it covered before anything came in front."""

    item: Item
    id: int
    box: tuple[int, int, int, int]
    area: int
    projected: np.ndarray
    """Box xyxy in pixels of the whole solid, also beyond the image."""


def paint(
    buffer: np.ndarray, camera: PinholeCamera, light: Light, racks: list[Racks], items: list[Item]
) -> list[Painted]:
    """Draw racks and items into `buffer` uint8 [H,W,4] (RGB, id of the labelled item or 0); returns labelled ones."""
    ahead = [(item, float(camera.to_camera(item.position)[2])) for item in items]
    items = [item for item, depth in ahead if 0.5 < depth < 34.5]
    distances = [float(np.hypot(*(item.position - camera.position)[[0, 2]])) for item in items]
    labelled = [i for i, item in enumerate(items) if item.label >= 0][:255]
    ids = np.zeros(len(items), int)
    ids[labelled] = np.arange(1, len(labelled) + 1)

    rack_quads = np.concatenate([block.quads for block in racks])
    ends_m = rack_quads[:, 0, 2] - camera.position[2]
    near = np.flatnonzero((ends_m > -4) & (ends_m < 34))
    num_rack = len(near)
    counts = [len(item.quads) for item in items]
    quads = np.concatenate([rack_quads[near]] + [item.quads for item in items])
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    points = camera.to_camera(quads)
    depth = np.ascontiguousarray(points[..., 2].T)
    seen = np.einsum("ij,ij->i", quads[:, 0] - camera.position, normals) < 0
    seen = np.flatnonzero(seen & (depth.max(0) > NEAR_M))

    colours = np.concatenate([np.concatenate([b.colours for b in racks])[near]] + [i.colours for i in items])
    item_keys = [AISLE_KEY - d if item.key is None else item.key for item, d in zip(items, distances, strict=True)]
    keys = np.concatenate([np.concatenate([b.keys for b in racks])[near], np.repeat(item_keys, counts)])
    member = np.concatenate([np.full(num_rack, -1), np.repeat(np.arange(len(items)), counts)])[seen]
    offsets = np.cumsum([1] + [int(item.parts[-1]) + 1 for item in items])
    own_parts = [item.parts + offset for item, offset in zip(items, offsets, strict=False)]
    parts = np.concatenate([np.zeros(num_rack, int), *own_parts]).astype(int)
    middle = depth.mean(0)
    part_depth = np.bincount(parts, middle) / np.maximum(np.bincount(parts), 1)
    part_depth[0] = 0

    points, depth = points[seen], depth[:, seen]
    crossing = depth.min(0) < NEAR_M
    pixels = camera.to_pixels(np.maximum(points, (-np.inf, -np.inf, NEAR_M)))
    corners = np.ascontiguousarray(pixels.transpose(2, 1, 0))
    low, high = corners.min(1), corners.max(1)
    whole = _spans(low, high, member, len(items))
    inside = (high >= 0).all(0) & (low[0] <= camera.width) & (low[1] <= camera.height)

    order = np.flatnonzero(inside | crossing)
    order = order[np.lexsort((-part_depth[parts[seen[order]]], keys[seen[order]]))]
    chosen = seen[order]
    owner = np.concatenate([[0], ids])[member[order] + 1]
    shades = _shade(colours[chosen], normals[chosen], middle[chosen], light)
    shades = np.concatenate([shades, owner[:, None]], 1).tolist()
    polygons = list(np.round(pixels[order] * (1 << SUBPIXEL_BITS)).astype(np.int32))
    for row in np.flatnonzero(crossing[order]):
        clipped = camera.to_pixels(clip_near(points[order[row]]))
        polygons[row] = np.round(clipped * (1 << SUBPIXEL_BITS)).astype(np.int32)

    edges = np.flatnonzero(np.diff(owner)) + 1
    starts, ends = np.concatenate([[0], edges]).tolist(), np.concatenate([edges, [len(owner)]]).tolist()
    painted = []
    fill = cv2.fillConvexPoly
    for start, end in zip(starts, ends, strict=True):
        for polygon, colour in zip(polygons[start:end], shades[start:end], strict=True):
            fill(buffer, polygon, colour, 8, SUBPIXEL_BITS)
        number = int(owner[start]) if end > start else 0
        if number:
            index = labelled[number - 1]
            around = np.array([whole[index, 0] - 2, whole[index, 1] - 2, whole[index, 2] + 3, whole[index, 3] + 3])
            found = visible_box(buffer, number, around)
            if found is not None:
                painted.append(Painted(items[index], number, found[0], found[1], whole[index]))
    return painted


def visible_box(buffer: np.ndarray, number: int, around: np.ndarray) -> tuple[tuple[int, int, int, int], int] | None:
    """Box xyxy and area in pixels of an id within the rectangle `around` [4]; None where it isn't seen."""
    height, width = buffer.shape[:2]
    x0, y0, x1, y1 = np.clip(around, 0, (width, height, width, height)).astype(int).tolist()
    mask = buffer[y0:y1, x0:x1, 3] == number
    rows = np.flatnonzero(mask.any(1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask.any(0))
    box = (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
    return box, int(np.count_nonzero(mask))


def _spans(low: np.ndarray, high: np.ndarray, member: np.ndarray, num: int) -> np.ndarray:
    """Boxes xyxy [num,4] around the faces of each item, from their extents [2,F] and ascending items [F] (-1: none)."""
    spans = np.zeros((num, 4))
    first = int(np.searchsorted(member, 0))
    present, starts = np.unique(member[first:], return_index=True)
    if len(present):
        spans[present, :2] = np.minimum.reduceat(low[:, first:], starts, axis=1).T
        spans[present, 2:] = np.maximum.reduceat(high[:, first:], starts, axis=1).T
    return spans


def _shade(colours: np.ndarray, normals: np.ndarray, depth: np.ndarray, light: Light) -> np.ndarray:
    """Colours [F,3] in 0..255 of faces with (unnormalised) normals [F,3] at depths [F] in metres."""
    facing = (normals @ light.direction) / (np.linalg.norm(normals, axis=1) + 1e-9)
    lit = light.ambient + (1.05 - light.ambient) * np.maximum(facing, 0) + 0.08 * facing
    haze = haze_share(depth)[:, None]
    shaded = np.minimum(255 * colours * lit[:, None], 255)
    return shaded * (1 - haze) + light.haze * haze
