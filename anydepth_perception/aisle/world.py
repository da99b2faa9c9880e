"""The endless world of one seed: what stands, walks and drives where along the aisle at a time."""

from __future__ import annotations

import numpy as np

from anydepth_perception.aisle.pinhole import CameraMotion
from anydepth_perception.aisle.posters import poster
from anydepth_perception.aisle.racks import BAY_M, BLOCK_M, Item, Racks, RackStyle, build_block, build_goods
from anydepth_perception.aisle.solids import DISTRACTORS, FORKLIFT, LABELLED, PERSON, Solid, textured

CELL_M = 2.6
VIEW_M = 34.0
"""Distance at which everything has faded into the haze."""
BEHIND_M = 4.0
PERIOD_M = VIEW_M + BEHIND_M + 2.0
NUM_MOVERS = 4
STANDING = (0.1, 0.08, 0.2, 0.19, 0.19, 0.24)
"""Share of each labelled class among what stands still; people and trucks also come as movers."""
DETAIL_DISTANCE_M = 9.0
KEPT_BLOCKS, KEPT_CELLS, KEPT_GOODS = 8, 64, 256
"""Most parts of the world kept once drawn: more than are ever in view, few enough for a camera that runs for days."""


class World:
    """Everything in the aisle, a pure function of the seed and the time; parts of it are kept once drawn."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed = seed
        self.half_width_m = rng.uniform(2.1, 4.2)
        self.motion = CameraMotion.draw(rng, self.half_width_m)
        self.style = RackStyle.draw(rng, self.half_width_m, self.motion.height_m)
        self.density = rng.uniform(0.3, 0.72)
        self._blocks: dict[int, Racks] = {}
        self._goods: dict[tuple[int, int, int, int], Item] = {}
        self._cells: dict[tuple[int, int], list[Item]] = {}
        self._movers = [self._draw_mover(rng, i) for i in range(NUM_MOVERS)]

    def racks(self, camera_z: float) -> list[Racks]:
        """Blocks of racks in view of a camera at `camera_z` metres, far ones first."""
        first, last = int((camera_z - BEHIND_M) // BLOCK_M), int((camera_z + VIEW_M) // BLOCK_M)
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.clear()
        for block in range(first, last + 1):
            if block not in self._blocks:
                rng = np.random.default_rng([self.seed, 1, block % 2**32])
                self._blocks[block] = build_block(self.style, rng, block)
        return [self._blocks[block] for block in range(last, first - 1, -1)]

    def items(self, time_s: float, camera_z: float) -> list[Item]:
        """Solids on the floor, labelled goods in the racks and banners, in view of a camera at `camera_z` metres."""
        first, last = int((camera_z - 2) // CELL_M), int((camera_z + VIEW_M) // CELL_M)
        items: list[Item] = []
        if len(self._cells) > KEPT_CELLS:
            self._cells.clear()
        for cell in range(first, last + 1):
            detail = int(cell * CELL_M - camera_z < DETAIL_DISTANCE_M)
            if (cell, detail) not in self._cells:
                self._cells[cell, detail] = self._draw_cell(cell, detail)
            items.extend(self._cells[cell, detail])
        return items + self._goods_in_view(camera_z) + [self._mover_at(i, time_s, camera_z) for i in range(NUM_MOVERS)]

    def _goods_in_view(self, camera_z: float) -> list[Item]:
        items = []
        if len(self._goods) > KEPT_GOODS:
            self._goods.clear()
        for racks in self.racks(camera_z):
            for slot in racks.goods:
                if -1 < slot[1] * BAY_M - camera_z < VIEW_M - BAY_M:
                    if slot not in self._goods:
                        side, bay, level, place = slot
                        rng = np.random.default_rng([self.seed, 6, side + 1, bay % 2**32, level, place])
                        self._goods[slot] = build_goods(self.style, rng, *slot)
                    items.append(self._goods[slot])
        return items

    def _draw_cell(self, cell: int, detail: int) -> list[Item]:
        rng = np.random.default_rng([self.seed, 2, cell % 2**32])
        items = []
        for side in (-1, 1):
            if rng.random() < self.density:
                label = int(rng.choice(len(STANDING), p=STANDING))
                reach = 1.0 if label == FORKLIFT else 0.65
                x = side * (self.half_width_m - reach - abs(rng.normal(0, 0.35)))
                z = (cell + 0.5 + 0.25 * side + rng.uniform(-0.2, 0.2)) * CELL_M
                yaw = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.9 if label == PERSON else 0.3)
                items.append(_labelled(label, LABELLED[label], rng, (x, 0.0, z, yaw), 0.0, False, detail))
        if rng.random() < 0.22:
            mesh = DISTRACTORS[rng.integers(len(DISTRACTORS))](rng.random(6))
            x = rng.uniform(-1, 1) * (self.half_width_m - 0.8)
            if abs(x - self.motion.lateral_m) < 1.0:
                x = self.motion.lateral_m - np.sign(self.motion.lateral_m) * rng.uniform(1.0, 1.6)
            position = np.array([x, 0.0, (cell + rng.random()) * CELL_M])
            quads = mesh.placed(position, rng.uniform(-np.pi, np.pi))
            items.append(Item(quads, textured(mesh, rng), mesh.parts, -1, position, shadow=_shadow(quads)))
        if rng.random() < 0.1:
            picture, colours = poster(rng)
            position = np.array([rng.uniform(-0.6, 0.6) * self.half_width_m, rng.uniform(2.8, 3.6), cell * CELL_M])
            flat = picture * rng.uniform((0.8, 0.7), (1.6, 1.3))
            quads = np.concatenate([-flat[..., :1], flat[..., 1:], np.zeros_like(flat[..., :1])], -1) + position
            items.append(Item(quads, colours, np.zeros(len(quads), int), -1, position))
        return items

    def _draw_mover(self, rng: np.random.Generator, index: int) -> tuple[int, float, float, float]:
        """Class, lane x in metres, speed in m/s (negative: towards the camera), start in metres."""
        label = PERSON if index < 2 or rng.random() < 0.3 else FORKLIFT
        side = 1 if index % 2 else -1
        room = self.half_width_m - (0.9 if label == PERSON else 1.1)
        lane = self.motion.lateral_m + side * rng.uniform(0.8 if label == PERSON else 1.4, 2.4)
        lane = float(np.clip(lane, -room, room))
        if abs(lane - self.motion.lateral_m) < 0.8:
            lane = -room * float(np.sign(self.motion.lateral_m))
        if abs(lane - self.motion.lateral_m) < 1.3:
            label = PERSON
        speed = rng.uniform(0.6, 1.5) if label == PERSON else rng.uniform(0.8, 2.2)
        return label, lane, speed * rng.choice([-1, 1]), (index + rng.random()) * PERIOD_M / NUM_MOVERS

    def _mover_at(self, index: int, time_s: float, camera_z: float) -> Item:
        label, lane, speed, start = self._movers[index]
        ahead = start + (speed - self.motion.speed_mps) * time_s
        generation, ahead = int(ahead // PERIOD_M), ahead % PERIOD_M - BEHIND_M
        rng = np.random.default_rng([self.seed, 3, index, generation % 2**32])
        yaw = 0.0 if speed > 0 else np.pi
        drift = 0.25 * np.sin(0.4 * time_s + index)
        place = (lane + drift, 0.0, camera_z + ahead, yaw + rng.normal(0, 0.05))
        phase = abs(speed) * time_s * 4.2 + index
        return _labelled(label, LABELLED[label], rng, place, phase, label == PERSON, int(ahead < DETAIL_DISTANCE_M))


def _labelled(
    label: int,
    build: Solid,
    rng: np.random.Generator,
    place: tuple[float, float, float, float],
    phase: float,
    walking: bool,
    detail: int,
) -> Item:
    mesh = build(rng.random(6), phase, walking, detail)
    colours = textured(mesh, rng)
    quads = mesh.placed(np.array(place[:3]), place[3])
    return Item(quads, colours, mesh.parts, label, np.array(place[:3]), shadow=_shadow(quads))


def _shadow(quads: np.ndarray) -> tuple[float, float, float]:
    """Half width, half depth and height in metres of what quads [F,4,3] cast on the floor."""
    points = quads.reshape(-1, 3)
    half = 0.48 * (points.max(0) - points.min(0))
    return float(half[0]), float(half[2]), float(2 * half[1])
