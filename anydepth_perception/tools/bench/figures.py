"""The figures that measurements put out, as they stand in their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, final


class RungFigures(TypedDict):
    """One configuration: cost of a frame, AP in [0, 1] where there is one, milliseconds of inference."""

    gflops: float
    AP: float | None
    inference_ms_p50: float
    inference_ms_p95: float


class HostFigures(TypedDict):
    """Milliseconds of a frame beside its inference, over all depths, in all and by part; rounds they are of."""

    host_ms_p50: float
    host_ms_p95: float
    host_parts_ms_p50: dict[str, float]
    rounds: int


@final
class Transport(TypedDict):
    """Images sent and received, and milliseconds from publishing to the callback; None where nothing arrived."""

    sent: int
    received: int
    latency_ms_p50: float | None
    latency_ms_p95: float | None


@final
class NotMeasured(TypedDict):
    """Stands for a figure that there is none of: the reason."""

    not_measured: str


Transports = Mapping[str, Transport | NotMeasured]
"""By whether the shipped DDS profile was used: `with_profile`, `without_profile`."""


def transport_lines(transports: Transports | NotMeasured) -> list[str]:
    """Lines for people."""
    if "not_measured" in transports:
        return [f"transport not measured: {transports['not_measured']}"]
    return [f"transport {name.replace('_', ' ')}: {_words(figures)}" for name, figures in transports.items()]


def _words(figures: Transport | NotMeasured) -> str:
    if "not_measured" in figures:
        return f"not measured: {figures['not_measured']}"
    return (
        f"{figures['received']} of {figures['sent']} images received, "
        f"latency p50 {figures['latency_ms_p50']} ms, p95 {figures['latency_ms_p95']} ms"
    )
