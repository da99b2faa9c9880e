"""How a bundle is executed: whole, one engine per configuration, or staged, with decisions within a frame."""

from __future__ import annotations

from collections.abc import Sequence

from anydepth_perception.backends.base import Backend
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.bundle import Bundle
from anydepth_perception.execution.base import Decide, Decision, Executed, Execution
from anydepth_perception.execution.engines import EngineReady, Progress
from anydepth_perception.execution.plan import DecisionPointError
from anydepth_perception.execution.self_check import Checked, SelfCheckError
from anydepth_perception.execution.staged import StagedExecution
from anydepth_perception.execution.whole import WholeExecution

WHOLE, STAGED = "whole", "staged"
EXECUTIONS = (WHOLE, STAGED)
"""Accepted values of the `execution` parameter."""

__all__ = [
    "EXECUTIONS",
    "STAGED",
    "WHOLE",
    "Checked",
    "Decide",
    "Decision",
    "DecisionPointError",
    "EngineReady",
    "Executed",
    "Execution",
    "Progress",
    "SelfCheckError",
    "StagedExecution",
    "WholeExecution",
    "create_execution",
]


def create_execution(
    name: str,
    bundle: Bundle,
    backend: Backend,
    decision_points: Sequence[str] | None = None,
    *,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> Execution:
    """The execution called `name`; `decision_points`, `cache` and `progress` as in `StagedExecution`.

    Raises:
        ValueError: the name is unknown, or decision points are given to whole execution.
        DecisionPointError, BundleError, BackendError: see `StagedExecution`.
    """
    if name == WHOLE:
        if decision_points is not None:
            raise ValueError(f"decision_points are {tuple(decision_points)}, but execution whole has none")
        return WholeExecution(bundle, backend, cache, progress)
    if name == STAGED:
        return StagedExecution(bundle, backend, decision_points, cache, progress)
    raise ValueError(f"execution {name!r} is unknown, accepted are {', '.join(EXECUTIONS)}")
