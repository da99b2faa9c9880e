"""AisleScene: renders one seed's warehouse aisle at any time, with exact boxes of what can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anydepth_perception.aisle.floor import draw_floor, floor_texture
from anydepth_perception.aisle.painter import Light, Painted, paint, visible_box
from anydepth_perception.aisle.pinhole import PinholeCamera
from anydepth_perception.aisle.racks import Item
from anydepth_perception.aisle.sensor import Sensor
from anydepth_perception.aisle.world import World

MIN_VISIBLE_SHARE = 0.3
"""Least visible share of an object's own pixels in the image, below which it is ignored."""
MIN_INSIDE_SHARE = 0.2
"""Least share of an object's projected box inside the image, below which it is ignored."""
MIN_SIDE_PX = 4
MAX_LABEL_DISTANCE_M = 26.0
LAMP_SPACING_M = 8.0
LAMP_CORNERS_M = np.array([[-0.5, 6.0, -0.6], [0.5, 6.0, -0.6], [0.5, 6.0, 0.6], [-0.5, 6.0, 0.6]])


@dataclass(frozen=True)
class AisleFrame:
    """One image and its objects.

    `image` uint8 [H,W,3] RGB; `boxes` float32 [n,4] xyxy in pixels of the visible part, `class_ids`
    int64 [n] into `CLASS_NAMES`; `ignore_boxes` float32 [m,4] of objects that are heavily occluded,
    cut off, too far or under 4 pixels a side, `ignore_class_ids` int64 [m].
    """

    image: np.ndarray
    boxes: np.ndarray
    class_ids: np.ndarray
    ignore_boxes: np.ndarray
    ignore_class_ids: np.ndarray


class AisleScene:
    """An endless warehouse aisle drawn from a seed (>= 0), seen by a camera that moves along it.

    `render` is a pure function of the seed, the size and the time; times from 0 s on are valid.
    """

    def __init__(self, seed: int, width: int = 320, height: int = 320) -> None:
        if seed < 0:
            raise ValueError(f"the seed of an aisle scene is {seed}; it must be >= 0")
        if min(width, height) < 32:
            raise ValueError(f"an aisle image of {width} x {height} pixels is too small; each side must be >= 32")
        self.seed, self.width, self.height = seed, width, height
        self._world = World(seed)
        rng = np.random.default_rng([seed, 4])
        self._light = Light.draw(rng)
        self._sensor = Sensor.draw(rng)
        self._floor = floor_texture(rng, self._world.half_width_m)
        self._ceiling = self._light.haze * rng.uniform(0.25, 0.8)

    def render(self, time_s: float) -> AisleFrame:
        """The frame at `time_s` seconds (finite, >= 0)."""
        if not (np.isfinite(time_s) and time_s >= 0):
            raise ValueError(f"cannot render an aisle at {time_s} s; the time must be finite and >= 0")
        camera = self._world.motion.at(time_s, self.width, self.height)
        camera_z = float(camera.position[2])
        items = self._world.items(time_s, camera_z)
        buffer = np.empty((self.height, self.width, 4), np.uint8)
        self._draw_ceiling(buffer, camera)
        shadows = [s for s in (self._shadow(camera, item) for item in items) if s is not None]
        draw_floor(buffer, camera, self._floor, self._light.haze, shadows)
        painted = paint(buffer, camera, self._light, self._world.racks(camera_z), items)
        rng = np.random.default_rng([self.seed, 5, round(time_s * 1e6)])
        image = self._sensor.expose(cv2.cvtColor(buffer, cv2.COLOR_RGBA2RGB), rng, time_s)
        return _label(buffer, image, camera, painted)

    def _draw_ceiling(self, buffer: np.ndarray, camera: PinholeCamera) -> None:
        """Fill `buffer` with the far end's haze below a darker ceiling with lamps."""
        mix = np.linspace(0, 1, self.height)[:, None] ** 0.7
        column = self._ceiling * (1 - mix) + self._light.haze * mix
        pixels = np.zeros((self.height, 4), np.uint8)
        pixels[:, :3] = column
        buffer.view(np.uint32)[..., 0] = pixels.view(np.uint32)
        first = int(camera.position[2] // LAMP_SPACING_M) + 1
        for lamp in range(first + 3, first - 1, -1):
            z = lamp * LAMP_SPACING_M
            points = camera.to_camera(np.add(LAMP_CORNERS_M, (0, 0, z)))
            if points[:, 2].min() > 1:
                pixels = np.round(camera.to_pixels(points)).astype(np.int32)
                cv2.fillConvexPoly(buffer, pixels, (250, 250, 240, 0))

    def _shadow(self, camera: PinholeCamera, item: Item) -> np.ndarray | None:
        """Polygon [N,2] in pixels of an item's shadow on the floor, or None where it casts none in view."""
        if item.shadow is None:
            return None
        half_width, half_depth, height = item.shadow
        angles = np.arange(12) * (np.pi / 6)
        lean = -self._light.direction[[0, 2]] / self._light.direction[1] * height * 0.35
        away = np.stack([half_width * np.cos(angles), half_depth * np.sin(angles)], 1)
        away = away + lean * (away @ lean > 0)[:, None]
        ground = np.stack([item.position[0] + away[:, 0], np.zeros(12), item.position[2] + away[:, 1]], 1)
        points = camera.to_camera(ground)
        return camera.to_pixels(points) if points[:, 2].min() > 0.3 else None


def _label(buffer: np.ndarray, image: np.ndarray, camera: PinholeCamera, painted: list[Painted]) -> AisleFrame:
    boxes: list[tuple[int, int, int, int]] = []
    ignored: list[tuple[int, int, int, int]] = []
    class_ids: list[int] = []
    ignored_ids: list[int] = []
    for entry in painted:
        found = visible_box(buffer, entry.id, np.array(entry.box))
        if found is None:
            continue
        box, area = found
        span = np.maximum(entry.projected[2:] - entry.projected[:2], 1)
        inside = (entry.box[2] - entry.box[0]) * (entry.box[3] - entry.box[1]) / float(span.prod())
        distance = float(np.linalg.norm(entry.item.position - camera.position))
        clear = (
            area >= MIN_VISIBLE_SHARE * entry.area
            and min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE_PX
            and inside >= MIN_INSIDE_SHARE
            and distance <= MAX_LABEL_DISTANCE_M
        )
        (boxes if clear else ignored).append(box)
        (class_ids if clear else ignored_ids).append(entry.item.label)
    return AisleFrame(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_ids, np.int64),
        np.array(ignored, np.float32).reshape(-1, 4),
        np.array(ignored_ids, np.int64),
    )
