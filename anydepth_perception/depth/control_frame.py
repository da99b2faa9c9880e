"""What the depth controller keeps of a frame in progress, and the price that it puts on a miss."""

from __future__ import annotations

from anydepth_perception.depth.completions import Node
from anydepth_perception.depth.residuals import Features
from anydepth_perception.depth.space import DepthConfig

_HIGHEST_PRICE = 5.0


class FrameInProgress:
    """The frame that has begun: what was decided, when, on what; and the decision that comes next."""

    __slots__ = (
        "budget_ms", "config", "decided_ms", "features", "group_ms", "groups_ms", "knows_start", "next", "node",
        "post_ms", "predicted",
    )

    def __init__(self, config: DepthConfig, budget_ms: float | None, node: Node | None) -> None:
        """Starts with a plan; without a `node` nothing is decided, and the plan stays."""
        self.config = config
        self.budget_ms = budget_ms
        self.node = node
        self.next: Node | None = None
        self.decided_ms = [0.0]
        self.post_ms = 0.0
        self.knows_start = False
        self.features: list[Features] = []
        self.predicted: list[float] = []
        self.group_ms = 0.0
        self.groups_ms: list[float] = []
        """Profiled milliseconds of all that has run before the second decision, the third, ..."""


class MissPrice:
    """AP that an avoidable miss costs beside the frame's own: above 0 while there are more of them than wanted."""

    __slots__ = ("_per_miss", "value")

    def __init__(self, per_miss: float) -> None:
        """`per_miss` is what each avoidable miss adds, AP."""
        self._per_miss = per_miss
        self.value = 0.0

    def observe(self, avoidable_miss: bool, miss_target: float) -> None:
        """Rises with an avoidable miss, and falls with other frames such that it stays where `miss_target` miss."""
        step = (1.0 if avoidable_miss else 0.0) - miss_target
        self.value = min(_HIGHEST_PRICE, max(0.0, self.value + self._per_miss * step))
