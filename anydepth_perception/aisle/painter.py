"""Paints quads into an RGB + id buffer from far to near, and reads exact visible boxes off the ids."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anydepth_perception.aisle.camera import NEAR_M, Camera, clip_near
from anydepth_perception.aisle.floor import haze_share
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


def paint(buffer: np.ndarray, camera: Camera, light: Light, racks: list[Racks], items: list[Item]) -> list[Painted]:
    """Draw racks and items into `buffer` uint8 [H,W,4] (RGB, id of the labelled item or 0); returns labelled ones."""
    items = [item for block in racks for item in block.items] + items
    ahead = [(item, float(camera.to_camera(item.position)[2])) for item in items]
    items = [item for item, depth in ahead if 0.5 < depth < 34.5]
    distances = [float(np.hypot(*(item.position - camera.position)[[0, 2]])) for item in items]
    labelled = [i for i, item in enumerate(items) if item.label >= 0][:255]
    ids = np.zeros(len(items), int)
    ids[labelled] = np.arange(1, len(labelled) + 1)

    counts = [len(item.quads) for item in items]
    rack_quads = np.concatenate([block.quads for block in racks])
    near = rack_quads[:, :, 2].max(1) > camera.position[2] - 1
    near &= rack_quads[:, 0, 2] < camera.position[2] + 34
    rack_quads = rack_quads[near]
    num_rack = len(rack_quads)
    quads = np.concatenate([rack_quads] + [item.quads for item in items])
    colours = np.concatenate([np.concatenate([b.colours for b in racks])[near]] + [i.colours for i in items])
    item_keys = [AISLE_KEY - d if item.key is None else item.key for item, d in zip(items, distances, strict=True)]
    keys = np.concatenate([np.concatenate([b.keys for b in racks])[near], np.repeat(item_keys, counts)])
    owner = np.concatenate([np.zeros(num_rack, int), np.repeat(ids, counts)])
    offsets = np.cumsum([0] + [int(item.parts[-1]) + 1 for item in items])
    parts = np.concatenate([item.parts + offset for item, offset in zip(items, offsets, strict=False)]).astype(int)

    points = camera.to_camera(quads)
    depth = points[..., 2]
    part_depth = np.bincount(parts, depth[num_rack:].mean(1)) / np.maximum(np.bincount(parts), 1)
    second = np.concatenate([np.zeros(num_rack), -part_depth[parts]])

    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    visible = ((quads[:, 0] - camera.position) * normals).sum(1) < 0
    closest = depth.min(1)
    visible &= depth.max(1) > NEAR_M
    pixels = camera.to_pixels(np.maximum(points, (-np.inf, -np.inf, NEAR_M)))
    limit = (camera.width, camera.height)
    whole = _projected_boxes(pixels[num_rack:], counts)
    inside = (pixels.max(1) >= 0).all(1) & (pixels.min(1) <= limit).all(1)
    visible &= inside | (closest < NEAR_M)

    chosen = np.flatnonzero(visible)
    chosen = chosen[np.lexsort((second[chosen], keys[chosen]))]
    shades = _shade(colours[chosen], normals[chosen], depth[chosen].mean(1), light)
    shades = np.concatenate([shades, owner[chosen, None]], 1).tolist()
    fixed = np.round(pixels[chosen] * (1 << SUBPIXEL_BITS)).astype(np.int32)
    polygons = list(fixed)
    for row in np.flatnonzero(closest[chosen] < NEAR_M):
        clipped = camera.to_pixels(clip_near(points[chosen[row]]))
        polygons[row] = np.round(clipped * (1 << SUBPIXEL_BITS)).astype(np.int32)

    owners = owner[chosen]
    edges = np.flatnonzero(np.diff(owners)) + 1
    starts, ends = np.concatenate([[0], edges]).tolist(), np.concatenate([edges, [len(owners)]]).tolist()
    painted = []
    fill = cv2.fillConvexPoly
    for start, end in zip(starts, ends, strict=True):
        for polygon, colour in zip(polygons[start:end], shades[start:end], strict=True):
            fill(buffer, polygon, colour, 8, SUBPIXEL_BITS)
        number = int(owners[start]) if end > start else 0
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


def _projected_boxes(pixels: np.ndarray, counts: list[int]) -> np.ndarray:
    """Boxes [N,4] of consecutive runs of quads [F,4,2], of the given lengths."""
    if not counts:
        return np.zeros((0, 4))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    low = np.minimum.reduceat(pixels.min(1), starts)
    high = np.maximum.reduceat(pixels.max(1), starts)
    return np.concatenate([low, high], 1)


def _shade(colours: np.ndarray, normals: np.ndarray, depth: np.ndarray, light: Light) -> np.ndarray:
    """Colours [F,3] in 0..255 of faces with (unnormalised) normals [F,3] at depths [F] in metres."""
    facing = (normals @ light.direction) / (np.linalg.norm(normals, axis=1) + 1e-9)
    lit = light.ambient + (1.05 - light.ambient) * np.maximum(facing, 0) + 0.08 * facing
    haze = haze_share(depth)[:, None]
    shaded = np.minimum(255 * colours * lit[:, None], 255)
    return shaded * (1 - haze) + light.haze * haze
