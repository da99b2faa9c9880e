"""The moving pinhole camera: pose over time, projection of quads with near-plane clipping, and the floor homography."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR_M = 0.15


@dataclass(frozen=True)
class PinholeCamera:
    """Position [3] in metres, rotation [3,3] whose rows are right, up, forward; focal length in pixels; image size."""

    position: np.ndarray
    rotation: np.ndarray
    focal_px: float
    width: int
    height: int

    @property
    def centre_px(self) -> tuple[float, float]:
        """Principal point (x, y) in pixels, with the centre of the first pixel at (0, 0)."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points [...,3] as (right, up, depth) [...,3]."""
        return (points - self.position) @ self.rotation.T

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Camera points [...,3] of positive depth as pixels [...,2]."""
        x, y = self.centre_px
        scale = self.focal_px / points[..., 2:]
        return points[..., :2] * scale * (1, -1) + (x, y)

    def floor_homography(self) -> np.ndarray:
        """Matrix [3,3] from homogeneous pixels to floor points (x, z) relative to the camera, in metres."""
        x, y = self.centre_px
        to_ray = np.array([[1, 0, -x], [0, -1, y], [0, 0, self.focal_px]]) / self.focal_px
        rays = self.rotation.T @ to_ray
        height = self.position[1]
        return np.stack([height * rays[0], height * rays[2], -rays[1]])


def clip_near(polygon: np.ndarray) -> np.ndarray:
    """The part [M,3] of a convex camera-space polygon [N,3] that lies beyond the near plane."""
    points = []
    for start, end in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if start[2] >= NEAR_M:
            points.append(start)
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            points.append(start + (end - start) * ((NEAR_M - start[2]) / (end[2] - start[2])))
    return np.array(points)


@dataclass(frozen=True)
class CameraMotion:
    """How the camera of one scene moves: along the aisle at constant speed, with a slight sway and turn."""

    vertical_fov: float
    height_m: float
    lateral_m: float
    speed_mps: float
    yaw: float
    pitch: float
    roll: float
    sway: np.ndarray
    """Phases [4] in radians of sway, turn, nod and bob."""

    @classmethod
    def draw(cls, rng: np.random.Generator, half_width_m: float) -> CameraMotion:
        """A random camera for an aisle of the given half width."""
        return cls(
            vertical_fov=np.radians(rng.uniform(52, 76)),
            height_m=rng.uniform(1.1, 2.3),
            lateral_m=rng.uniform(-0.4, 0.4) * half_width_m,
            speed_mps=rng.uniform(0.5, 1.6),
            yaw=np.radians(rng.normal(0, 6)),
            pitch=np.radians(rng.uniform(3, 14)),
            roll=np.radians(rng.normal(0, 0.7)),
            sway=rng.uniform(0, 2 * np.pi, 4),
        )

    def at(self, time_s: float, width: int, height: int) -> PinholeCamera:
        """The camera at a time, for an image size in pixels."""
        wave = np.sin(np.array([0.5, 0.35, 0.8, 1.9]) * time_s + self.sway)
        yaw = self.yaw + np.radians(5) * wave[1]
        pitch = self.pitch + np.radians(0.6) * wave[2]
        forward = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
        up = np.cross(forward, right)
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        rotation = np.stack([cosine * right + sine * up, cosine * up - sine * right, forward])
        position = np.array(
            [self.lateral_m + 0.15 * wave[0], self.height_m + 0.02 * wave[3], self.speed_mps * time_s]
        )
        return PinholeCamera(position, rotation, height / 2 / np.tan(self.vertical_fov / 2), width, height)
