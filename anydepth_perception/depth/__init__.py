"""Depth: what a configuration is, what it costs, and which one meets a deadline.

Pure Python and NumPy, without a clock and without the rest of the package: the controller can be driven by anybody's
times. `docs/control.md` does so in a dozen lines.
"""

from anydepth_perception.depth.control_settings import ControllerParameters, ControllerState
from anydepth_perception.depth.controller import DepthController
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step

__all__ = [
    "ControllerParameters", "ControllerState", "DepthConfig", "DepthController", "DepthLimits", "DepthSpace", "Step"
]
