"""Constants of the depth controller, and what it tells about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ControllerParameters:
    """Constants of the controller; `docs/control.md` says how they were found.

    Attributes:
        miss_target: share of frames that may miss a deadline which a shallower configuration would have met, (0, 1).
        risk_per_decision: times `miss_target`, the risk that one decision may add.
        window: residuals that each decision point remembers.
        slow_gain: of the slow mean of ln(slowdown) over frames, (0, 1].
        fast_gain: of the fast one.
        forgetting: weight of the predictor's sums of one frame ago, (0, 1).
        foresight: between 0, a plan is valued as if it could not be changed later, and 1, as if all were known then.
        penalty: AP that each avoidable miss adds to the price of the next ones, see `MissPrice`.
        initial_slowdown: actual over profiled time before the first frame.
    """

    miss_target: float = 0.01
    risk_per_decision: float = 3.0
    window: int = 300
    slow_gain: float = 0.1
    fast_gain: float = 0.6
    forgetting: float = 0.995
    foresight: float = 0.5
    penalty: float = 0.1
    initial_slowdown: float = 1.2


@dataclass(frozen=True)
class ControllerState:
    """What the controller believes now, for logs and diagnostics.

    Attributes:
        depth: `auto` or the fixed configuration.
        inference_slowdown: actual over profiled time of the engines.
        host_slowdown: the same of everything else.
        margin: factor by which all but `miss_target` of the frames stayed below what was expected.
        feasible: whether the last frame was expected to meet its deadline, at least at the least depth.
        price: AP that an avoidable miss costs beside the frame's own.
    """

    depth: str
    inference_slowdown: float
    host_slowdown: float
    margin: float
    feasible: bool
    price: float

    def as_dict(self) -> dict[str, str | float | bool]:
        """For JSON."""
        return asdict(self)
