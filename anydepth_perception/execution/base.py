"""What the ways of executing a bundle have in common: a frame in, raw outputs out, and a say in the depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from anydepth_perception.backends.base import Backend, Buffer, Placement
from anydepth_perception.bundle import Bundle
from anydepth_perception.bundle.manifest import TensorSpec
from anydepth_perception.depth.config import DepthConfig


@dataclass(frozen=True)
class Decision:
    """What is known at a decision point.

    `config` is what has run so far and what is planned for the rest; `elapsed_ms` counts from the start of the
    frame; `groups_left` are the pipeline entries that have not run, by the decision points that follow.
    """

    point: str
    config: DepthConfig
    elapsed_ms: float
    groups_left: Sequence[tuple[str, ...]]


Decide = Callable[[Decision], DepthConfig]
"""Asked at each decision point, returns the configuration to go on with; it agrees with what has run already."""


@dataclass(frozen=True)
class Executed:
    """The configuration that really ran, and the milliseconds of each group."""

    config: DepthConfig
    group_ms: tuple[float, ...]


class Execution(Protocol):
    """A bundle compiled for some depths. `run` belongs to one thread; `ensure` may be called from another."""

    @property
    def image(self) -> np.ndarray:
        """Where the host puts the image, uint8 [1, H, W, 3] RGB."""
        ...

    @property
    def boxes(self) -> np.ndarray:
        """Raw boxes float32 [1, N, 4] of the last run; overwritten by the next."""
        ...

    @property
    def logits(self) -> np.ndarray:
        """Raw logits float32 [1, N, C] of the last run; overwritten by the next."""
        ...

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Pipeline entries of each group, which a decision point precedes."""
        ...

    def ensure(self, config: DepthConfig) -> None:
        """Compiles and warms what `config` lacks.

        Raises:
            DepthConfigError: the bundle has no such decoder exit.
            BundleError: a segment cannot be read.
            BackendError: the backend refuses the graph, or there is no memory.
            SelfCheckError: an engine that was just built puts out something else than the bundle's references.
        """
        ...

    def run(self, config: DepthConfig, decide: Decide | None = None, started: float | None = None) -> Executed:
        """Runs on `image` and leaves the outputs in `boxes` and `logits`.

        Args:
            config: what to run, where `decide` says nothing else.
            decide: asked at every decision point.
            started: when the frame began, `time.perf_counter` seconds; now if None.

        Raises:
            DepthConfigError: an engine is missing, or `decide` contradicts what has run.
            BackendError: the inference failed.
        """
        ...


def allocate_image(bundle: Bundle, backend: Backend) -> Buffer:
    """The image's buffer. It shares memory with nothing: what the host draws around the image stays."""
    spec = bundle.input_spec()
    return backend.allocate([Placement(spec)])[spec.name]


def scratch_buffers(backend: Backend, specs: Sequence[TensorSpec]) -> dict[str, Buffer]:
    """Buffers for a first run that disturbs no frame."""
    buffers: dict[str, Buffer] = {}
    for spec in specs:
        buffers.update(backend.allocate([Placement(spec)]))
    return buffers
