"""The ladder: the configurations worth running, by latency and AP, from the base-net up to the super-net."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from anydepth_perception.depth.space import DepthConfig, DepthSpace, Step


@dataclass(frozen=True)
class Rung:
    """A configuration with its profiled inference time in milliseconds and its AP in [0, 1].

    The latency is NaN where it was not profiled.
    """

    config: DepthConfig
    latency_ms: float
    average_precision: float


class Ladder:
    """Rungs in ascending order of latency, of which each deeper one has the higher AP."""

    def __init__(self, rungs: Sequence[Rung]) -> None:
        """`rungs` in strictly ascending order of latency, at least one; `Ladder.pareto` makes them so.

        Raises:
            ValueError: there is none, or the order is wrong.
        """
        self.rungs = tuple(rungs)
        self._latencies = [rung.latency_ms for rung in self.rungs]
        if not self.rungs:
            raise ValueError("a ladder needs at least one rung")
        if any(b <= a for a, b in zip(self._latencies, self._latencies[1:], strict=False)):
            raise ValueError(f"rungs are not in ascending order of latency: {self._latencies} ms")

    @classmethod
    def pareto(
        cls, rungs: Iterable[Rung], *, base: DepthConfig | None = None, full: DepthConfig | None = None
    ) -> Ladder:
        """Keeps the rungs that no other beats in both latency and AP.

        The rungs of `base` and `full`, where given, stay as the two ends, whatever a noisy measurement says,
        and nothing below the one or above the other is kept.

        Where full was measured no slower than base, nothing is worth running but full, and it is the only rung.

        Raises:
            ValueError: no rung has a usable latency, or `base` or `full` is not among them.
        """
        usable = [rung for rung in rungs if math.isfinite(rung.latency_ms) and rung.latency_ms > 0.0]
        ends = {rung.config: rung for rung in usable if rung.config in (base, full)}
        for config in (base, full):
            if config is not None and config not in ends:
                raise ValueError(f"no rung with a usable latency for {config}")
        front: list[Rung] = [ends[base]] if base is not None else []
        last = ends[full] if full is not None else None
        if last is not None and front and last.latency_ms <= front[0].latency_ms:
            return cls([last])
        for rung in sorted(usable, key=lambda rung: (rung.latency_ms, -rung.average_precision)):
            if last is not None and rung.latency_ms >= last.latency_ms:
                break
            if not front or (
                rung.latency_ms > front[-1].latency_ms and rung.average_precision > front[-1].average_precision
            ):
                front.append(rung)
        if last is not None:
            front.append(last)
        return cls(front)

    @property
    def base(self) -> Rung:
        """The shallowest rung."""
        return self.rungs[0]

    @property
    def full(self) -> Rung:
        """The deepest rung."""
        return self.rungs[-1]

    def __len__(self) -> int:
        """Number of rungs."""
        return len(self.rungs)

    def deepest_within(self, milliseconds: float) -> Rung | None:
        """The deepest rung whose latency is at most `milliseconds`, or None if even the shallowest takes longer."""
        index = bisect_right(self._latencies, milliseconds)
        return self.rungs[index - 1] if index else None

    def find(self, config: DepthConfig) -> Rung | None:
        """The rung of `config`, or None."""
        return next((rung for rung in self.rungs if rung.config == config), None)


def default_configs(
    space: DepthSpace,
    gflops: Mapping[Step, float],
    average_precision: Callable[[DepthConfig], float],
    count: int = 8,
) -> tuple[DepthConfig, ...]:
    """Configurations to compile and profile before any time is known: good AP for their GFLOPs, base to full.

    Of all mixtures of paths (and exits), the Pareto-optimal ones by GFLOPs and AP are thinned to `count`
    evenly spaced in GFLOPs, always with base and full. Ascending in GFLOPs.

    Args:
        space: what there is to choose from.
        gflops: cost of every step.
        average_precision: AP of any configuration, in [0, 1].
        count: configurations wanted, at least 2; fewer where there are no more.

    Raises:
        ValueError: `count` is below 2.
    """
    if count < 2:
        raise ValueError(f"count is {count}, expected at least 2: base and full")
    by_cost = [Rung(config, space.total(gflops, config), average_precision(config)) for config in space.all()]
    ends = {rung.config: rung for rung in by_cost if rung.config in (space.base, space.full)}
    low, high = ends[space.base].latency_ms, ends[space.full].latency_ms
    if not low < high:
        return tuple(dict.fromkeys((space.base, space.full)))
    inner = [rung for rung in by_cost if low < rung.latency_ms < high]
    front = list(Ladder.pareto([*inner, *ends.values()], base=space.base, full=space.full).rungs)[1:-1]
    # A short front (a coarse accuracy table) is filled up with the next best.
    ranked = front + sorted(set(inner) - set(front), key=lambda rung: (-rung.average_precision, rung.latency_ms))
    pool = ranked[: max(count - 2, len(front))]
    chosen: list[Rung] = []
    for step in range(1, count - 1):
        target = low + (high - low) * step / (count - 1)
        left = [rung for rung in pool if rung not in chosen]
        if left:
            chosen.append(min(left, key=lambda rung: abs(rung.latency_ms - target)))
    chosen.sort(key=lambda rung: rung.latency_ms)
    return (space.base, *(rung.config for rung in chosen), space.full)
