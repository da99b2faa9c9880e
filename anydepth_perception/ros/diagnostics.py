"""What /diagnostics says of the node once a second, and warnings that don't repeat for every frame."""

from __future__ import annotations

from dataclasses import dataclass, fields

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from anydepth_perception.depth.controller import AUTO
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.ros.messages import key_values
from anydepth_perception.serving.model import Model
from anydepth_perception.serving.scheduler import CountedAge
from anydepth_perception.serving.settings import Settings
from anydepth_perception.serving.statistics import FrameSummary

WARNING_INTERVAL_S = 10.0


_MOST_KINDS = 64


class WarningThrottle:
    """Lets one warning of a kind through per `WARNING_INTERVAL_S`; of very many kinds, all of them together."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}

    def allows(self, kind: str, now_s: float) -> bool:
        """Whether a warning of this kind is due at `now_s` of the steady clock; counts it as given if so."""
        if kind not in self._last_s and len(self._last_s) >= _MOST_KINDS:
            kind = ""
        last_s = self._last_s.get(kind)
        if last_s is not None and now_s - last_s < WARNING_INTERVAL_S:
            return False
        self._last_s[kind] = now_s
        return True


@dataclass(frozen=True)
class Health:
    """Level (a constant of DiagnosticStatus) and its reason in one line."""

    level: bytes
    reason: str


def worst(healths: list[Health]) -> Health:
    """The most severe of several; its reason joins all that are not OK."""
    level = max((health.level for health in healths), default=DiagnosticStatus.OK)
    reasons = [health.reason for health in healths if health.level != DiagnosticStatus.OK]
    return Health(level, "; ".join(reasons) if reasons else healths[0].reason if healths else "")


def clock_health(topic: str, age: CountedAge | None) -> Health | None:
    """A warning of stamps that are older than scheduling believes, None where they are not."""
    if age is None:
        return None
    text = (
        f"stamps of {topic} are {_duration(age.usual_s)} old; scheduling counts at most {_duration(age.most_s)}; "
        f"is the camera's clock behind, or its transport slower than the deadline?"
    )
    return Health(DiagnosticStatus.WARN, text)


def deadline_health(settings: Settings, model: Model | None) -> Health | None:
    """A warning of a deadline that no depth is expected to meet now, with the figure that would work."""
    if model is None or model.controller.state.feasible:
        return None
    controller = model.controller
    deadlines = [value for value in (*settings.camera_deadlines_ms, settings.deadline_ms) if value]
    if not deadlines:
        return None
    text = (
        f"a deadline of {min(deadlines):g} ms is not met at any depth under the load of now; base needs "
        f"{controller.bound_ms(controller.space.base):.0f} ms and the time from the camera to here"
    )
    return Health(DiagnosticStatus.WARN, text)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1.0 else f"{seconds * 1e3:.0f} ms"


def frame_values(summary: FrameSummary) -> dict[str, object]:
    """Counts and rates of the frames, for the key-value part of a status."""
    counts = summary.counts
    due = counts.served + counts.dropped
    values: dict[str, object] = {
        "fps": summary.frames_per_s,
        "latency_ms_p50": summary.latency_ms_p50,
        "latency_ms_p95": summary.latency_ms_p95,
        "depth": summary.depth,
        "miss_percent": 100.0 * (counts.missed + counts.dropped) / due if due else 0.0,
    }
    return values | {f"frames_{item.name}": getattr(counts, item.name) for item in fields(counts)}


def detector_values(
    settings: Settings, model: Model | None, summary: FrameSummary, memory_bytes: int | None
) -> dict[str, object]:
    """What the status of the whole node holds beside its state and the machine's, for the key-value part.

    Args:
        settings: those in force.
        model: what serves, None while nothing is loaded.
        summary: of the frames of all cameras.
        memory_bytes: of this process, None where the system does not say.
    """
    values: dict[str, object] = {
        "model": str(model.bundle.path) if model is not None else settings.model,
        "backend": model.backend if model is not None else settings.backend,
        "backend_fallback": "; ".join(map(str, model.fallbacks)) if model is not None else "",
        "engine_cache": model.cache_folder if model is not None else "",
        "execution": settings.execution,
        "depth_setting": settings.depth,
        "deadline_ms": settings.deadline_ms,
    }
    if model is not None:
        state = model.controller.state
        values |= {"slowdown": state.inference_slowdown, "host_slowdown": state.host_slowdown, "margin": state.margin}
    values |= frame_values(summary)
    values["memory_mib"] = memory_bytes / 2**20 if memory_bytes is not None else None
    return values


def status(name: str, hardware_id: str, health: Health, values: dict[str, object]) -> DiagnosticStatus:
    """One DiagnosticStatus."""
    return DiagnosticStatus(
        level=health.level, name=name, message=health.reason, hardware_id=hardware_id, values=key_values(values)
    )


def diagnostic_array(stamp: Time, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    """A DiagnosticArray with the given time stamp."""
    message = DiagnosticArray(status=statuses)
    message.header.stamp = stamp
    return message


def free_depth_ms(settings: Settings, model: Model | None, summary: FrameSummary) -> float | None:
    """Profiled inference time at the depth of the newest frame; None where depth is fixed or nothing is served."""
    if model is None or summary.depth is None or settings.depth != AUTO:
        return None
    return model.controller.latency_ms(DepthConfig.parse(summary.depth))
