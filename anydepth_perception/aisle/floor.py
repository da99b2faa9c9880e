"""The concrete floor: a texture drawn per scene, warped into the image, with shadows and haze."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from anydepth_perception.aisle.pinhole import PinholeCamera

PIXELS_PER_M = 32
TILE_X_M, TILE_Z_M = 12.0, 8.0


@functools.cache
def noise_bank() -> np.ndarray:
    """Cloudy noise uint8 [512,512] around 128, the same for every scene."""
    rng = np.random.default_rng(20)
    total = np.zeros((512, 512), np.float32)
    for cells, weight in ((8, 1.0), (32, 0.6), (128, 0.45), (512, 0.5)):
        coarse = rng.normal(0, weight, (cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + total * 40, 0, 255).astype(np.uint8)


def floor_texture(rng: np.random.Generator, half_width_m: float) -> np.ndarray:
    """A random floor uint8 [256,384,3] that repeats along the aisle, 32 pixels a metre, centred on x = 0."""
    height, width = int(TILE_Z_M * PIXELS_PER_M), int(TILE_X_M * PIXELS_PER_M)
    y, x = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
    clouds = noise_bank()[y : y + height, x : x + width]
    tone = rng.uniform(70, 165) * (1 + rng.uniform(-0.06, 0.06, 3))
    contrast = rng.uniform(0.15, 0.5)
    lift = tone - 128 * contrast
    grey = cv2.merge([cv2.convertScaleAbs(clouds, alpha=contrast, beta=float(b)) for b in lift])
    middle = width // 2
    for _ in range(rng.integers(2, 7)):
        start, end = rng.uniform(0, (width, height), (2, 2)).astype(int).tolist()
        end[0] = start[0] + (end[0] - start[0]) // 6
        cv2.line(grey, start, end, (tone * rng.uniform(0.6, 0.9)).tolist(), int(rng.integers(1, 5)))
    for line in range(0, height, int(rng.choice([64, 128, 256]))):
        cv2.line(grey, (0, line), (width, line), (tone * 0.72).tolist(), 1)
    if rng.random() < 0.8:
        paint = [(225, 190, 40), (220, 220, 215), (200, 60, 50), (60, 110, 190)][rng.integers(4)]
        offset = int((half_width_m - rng.uniform(0.1, 0.9)) * PIXELS_PER_M)
        for side in (-1, 1):
            column = int(middle + side * offset)
            cv2.line(grey, (column, 0), (column, height), paint, int(rng.integers(3, 6)))
        if rng.random() < 0.4:
            for start in range(0, height, 64):
                cv2.line(grey, (middle, start), (middle, start + 32), paint, 3)
    lamps = 1 + rng.uniform(0, 0.2) * np.cos(np.arange(height) * (2 * np.pi / height))
    return cv2.convertScaleAbs(grey * lamps[:, None, None])


def draw_floor(
    buffer: np.ndarray, camera: PinholeCamera, texture: np.ndarray, haze: np.ndarray, shadows: list[np.ndarray]
) -> None:
    """Draw the floor over the lower part of `buffer` uint8 [H,W,4].

    `haze` [3] in 0..255 is the colour at a distance; `shadows` are polygons [N,2] in pixels.
    """
    height, width = buffer.shape[:2]
    to_floor = camera.floor_homography()
    slope = to_floor[2]
    at_ends = [-(slope[0] * x + slope[2]) / slope[1] for x in (0, width)]
    top = int(np.clip(min(at_ends), 0, height - 1))
    to_floor = to_floor @ np.array([[1, 0, 0], [0, 1, top], [0, 0, 1.0]])
    shift = np.array(
        [
            [PIXELS_PER_M, 0, (camera.position[0] + TILE_X_M / 2) * PIXELS_PER_M],
            [0, PIXELS_PER_M, (camera.position[2] % TILE_Z_M) * PIXELS_PER_M],
            [0, 0, 1],
        ]
    )
    size = (width, height - top)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(texture, shift @ to_floor, size, flags=flags, borderMode=cv2.BORDER_WRAP)
    rows, columns = np.arange(size[1], dtype=np.float32), np.arange(width, dtype=np.float32)
    fall = (slope[0] * columns)[None] + (slope[1] * (rows + top) + slope[2])[:, None]
    depth = camera.position[1] / np.maximum(fall, 1e-3, dtype=np.float32)
    clear = (1 - haze_share(depth)).astype(np.float32)
    mask = np.full(size[::-1], 255, np.uint8)
    for polygon in shadows:
        cv2.fillConvexPoly(mask, np.round((polygon - (0, top)) * 8).astype(np.int32), 110, cv2.LINE_8, 3)
    mask = cv2.blur(mask, (5, 5))
    lit = cv2.multiply(clear, mask, scale=1 / 255, dtype=cv2.CV_32F)
    for channel in range(3):
        plane = cv2.multiply(image[..., channel], lit, dtype=cv2.CV_32F)
        buffer[top:, :, channel] = cv2.addWeighted(plane, 1, clear, -float(haze[channel]), float(haze[channel]))
    buffer[top:, :, 3] = 0


def haze_share(depth: np.ndarray) -> np.ndarray:
    """Share of haze in [0,1] in what is seen at a depth in metres: none up to 8 m, all from 34 m."""
    ramp = np.clip((depth - 8.0) * (1 / 26.0), 0, 1)
    return ramp * ramp * (0.8 + 0.2 * ramp)
