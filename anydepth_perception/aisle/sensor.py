"""What the lens and the sensor do to a rendered image: blur, exposure, white balance, vignetting, noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np


@functools.cache
def _grain() -> np.ndarray:
    """Gaussian noise uint8 [640,640,3], 128 +- 32, slightly correlated between neighbours."""
    rng = np.random.default_rng(21)
    noise = rng.normal(0, 1, (640, 640, 3)).astype(np.float32)
    noise = noise + 0.5 * cv2.GaussianBlur(noise, (3, 3), 0)
    return np.clip(128 + noise * (32 / noise.std()), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _radius(width: int, height: int) -> np.ndarray:
    """Squared distance float32 [H,W] from the centre, 1 in the corners."""
    x = np.linspace(-1, 1, width, dtype=np.float32) ** 2
    y = np.linspace(-1, 1, height, dtype=np.float32) ** 2
    return (x[None] + y[:, None]) / 2


def _blur_kernel(length: float, angle: float, sigma: float) -> np.ndarray:
    """Motion over `length` pixels at `angle` radians, together with a soft lens of `sigma` pixels."""
    reach = 1 + int(np.ceil(length / 2))
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    x, y = np.meshgrid(offsets, offsets)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    beyond = np.maximum(np.abs(along) - length / 2, 0)
    kernel = np.exp(-(beyond**2 + across**2) / (2 * sigma**2))
    return kernel / kernel.sum()


@dataclass(frozen=True)
class Sensor:
    """One scene's camera: blur in pixels at 320 rows, noise in grey levels, gains relative to a neutral exposure."""

    sharpness_sigma: float
    motion_px: float
    motion_angle: float
    gamma: float
    gains: np.ndarray
    vignette: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sensor:
        """A random sensor; one in three is well lit and nearly still."""
        return cls(
            sharpness_sigma=rng.uniform(0.35, 0.6),
            motion_px=rng.choice([0.0, rng.uniform(0, 2), rng.uniform(1, 4)]),
            motion_angle=rng.normal(0, 0.5),
            gamma=rng.uniform(0.7, 1.15),
            gains=rng.uniform(0.75, 1.2) * rng.uniform(0.88, 1.12, 3),
            vignette=rng.uniform(0, 0.45),
            noise=rng.uniform(1, 8),
        )

    def expose(self, image: np.ndarray, rng: np.random.Generator, time_s: float) -> np.ndarray:
        """The picture uint8 [H,W,3] taken of `image` uint8 [H,W,3] at a time; `rng` draws this frame's grain."""
        height, width = image.shape[:2]
        shake = 0.6 + 0.4 * np.sin(1.3 * time_s)
        kernel = _blur_kernel(self.motion_px * shake * height / 320, self.motion_angle, self.sharpness_sigma)
        image = cv2.filter2D(image, -1, kernel.astype(np.float32))
        levels = np.arange(256) / 255.0
        flicker = 1 + 0.04 * np.sin(0.7 * time_s)
        curve = 255 * np.clip(levels[:, None] ** self.gamma * self.gains * flicker, 0, 1)
        image = cv2.LUT(image, np.round(curve).astype(np.uint8)[None])
        shade = cv2.addWeighted(_radius(width, height), -self.vignette, _radius(width, height), 0, 1.0)
        grain = self._grain_for(rng, width, height)
        strength = self.noise / 32
        shaded = cv2.multiply(image, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        return cv2.addWeighted(shaded, 1, grain, strength, -128 * strength)

    @staticmethod
    def _grain_for(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
        bank = _grain()
        if height > bank.shape[0] or width > bank.shape[1]:
            bank = np.tile(bank, (height // bank.shape[0] + 1, width // bank.shape[1] + 1, 1))
        y = rng.integers(bank.shape[0] - height + 1)
        x = rng.integers(bank.shape[1] - width + 1)
        return bank[y : y + height, x : x + width]
