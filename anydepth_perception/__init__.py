"""The robot half of AnyDepth Perception: an any-depth detector, its depth control and its ROS 2 node.

Without ROS, in a program or a notebook:

>>> import anydepth_perception as ap
>>> from anydepth_perception.aisle import AisleScene
>>> image = AisleScene(3, 640, 480).render(0.0).image  # uint8 [480, 640, 3] RGB; color="bgr" for what OpenCV reads
>>> detector = ap.load("aisle-yolo-t")
>>> detector.space.base
DepthConfig('EEEE.EEEE')
>>> detector(image, depth="base")
Detections(...crate...)
>>> detections = detector(image, deadline_ms=40.0)  # the deepest configuration that is expected to take no longer
>>> detections.draw(image).shape
(480, 640, 3)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anydepth_perception.depth.space import DepthConfig, DepthSpace
    from anydepth_perception.detection.detector import Detector
    from anydepth_perception.detection.postprocess import Detections
    from anydepth_perception.serving.model import load

# Nothing leaves the robot. ONNX Runtime looks at this when it is imported; its own function for it comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["DepthConfig", "DepthSpace", "Detections", "Detector", "load"]

_HOMES = {
    "DepthConfig": "anydepth_perception.depth.space",
    "DepthSpace": "anydepth_perception.depth.space",
    "Detections": "anydepth_perception.detection.postprocess",
    "Detector": "anydepth_perception.detection.detector",
    "load": "anydepth_perception.serving.model",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: the node has to answer signals before libraries are loaded, and tools need none of them.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
