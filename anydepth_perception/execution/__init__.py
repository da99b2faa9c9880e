"""How a bundle is executed: engines between decision points, of which `whole` has none within a frame."""

from anydepth_perception.execution.engines import EngineReady, Progress
from anydepth_perception.execution.execution import (
    EXECUTIONS,
    STAGED,
    WHOLE,
    Decide,
    Executed,
    Execution,
    decision_points_of,
)
from anydepth_perception.execution.self_check import Checked, SelfCheckError

__all__ = [
    "EXECUTIONS",
    "STAGED",
    "WHOLE",
    "Checked",
    "Decide",
    "EngineReady",
    "Executed",
    "Execution",
    "Progress",
    "SelfCheckError",
    "decision_points_of",
]
