"""Engines for an execution: out of the cache where they are, else composed and built."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import EncodeError

from anydepth_perception.backends.base import Backend, BackendError, Engine
from anydepth_perception.backends.engine_cache import EngineCache, EngineKey
from anydepth_perception.bundle import Bundle, Segment
from anydepth_perception.execution.self_check import Checked

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineReady:
    """An engine that is ready, one of `total` that are wanted now: what it is called and where it came from."""

    name: str
    done: int
    total: int
    cached: bool
    size_bytes: int
    seconds: float


Progress = Callable[[EngineReady | Checked], None]
"""Told of every engine that is ready and of every configuration whose outputs were checked."""


@dataclass(frozen=True)
class PreparedEngine:
    """An engine that is not bound yet, and what has to be kept of it: `built` is None where it came out of the cache.

    `size_bytes` is that of the engine in its serialised form.
    """

    engine: Engine
    name: str
    key: EngineKey | None
    built: bytes | None
    size_bytes: int
    seconds: float


def prepare_engine(
    bundle: Bundle,
    backend: Backend,
    cache: EngineCache | None,
    segments: Sequence[Segment],
    outputs: tuple[str, ...],
    name: str,
) -> PreparedEngine:
    """The engine of consecutive `segments` that writes `outputs`, not bound yet; `name` is for messages.

    Segments are read and composed only where the cache does not have the engine. What is built goes into the cache by
    `keep_engine`, when it has proven right.

    Raises:
        BundleError: a segment cannot be read.
        BackendError: the backend refuses the graph, or there is no memory.
    """
    started = time.perf_counter()
    # Without verified sums, the files may be others than those the manifest names.
    key = engine_key(backend, segments, outputs) if cache is not None and bundle.is_verified else None
    try:
        if cache is not None and key is not None:
            serialized = cache.get(key)
            engine = None if serialized is None else _load(backend, cache, key, serialized, name)
            if serialized is not None and engine is not None:
                return PreparedEngine(engine, name, key, None, len(serialized), time.perf_counter() - started)
        serialized = backend.build(bundle.compose_segments(list(segments), outputs, name))
        engine = backend.load(serialized, name)
    except (MemoryError, EncodeError) as error:  # protobuf says that it cannot encode where it has no memory to copy to
        raise BackendError(f"no memory for the engine {name!r}") from error
    return PreparedEngine(engine, name, key, serialized, len(serialized), time.perf_counter() - started)


def keep_engine(cache: EngineCache | None, prepared: PreparedEngine) -> None:
    """Puts an engine that was built into the cache, where there is one."""
    if cache is not None and prepared.key is not None and prepared.built is not None:
        cache.put(prepared.key, prepared.built)


def engine_key(backend: Backend, segments: Sequence[Segment], outputs: tuple[str, ...]) -> EngineKey:
    """What the engine of consecutive `segments` is found by."""
    return EngineKey(
        segments=tuple(segment.sha256 for segment in segments),
        tensors=tuple(
            f"{direction} {spec}"
            for segment in segments
            for direction, specs in (("in", segment.inputs), ("out", segment.outputs))
            for spec in specs
        ),
        outputs=outputs,
        backend=backend.name,
        version=backend.version,
        device=backend.device,
        precision=backend.precision,
        flags=dict(backend.flags),
    )


def _load(backend: Backend, cache: EngineCache, key: EngineKey, serialized: bytes, name: str) -> Engine | None:
    """The engine of an entry, or None where the library does not take it: then the entry goes."""
    try:
        engine = backend.load(serialized, name)
    except BackendError as error:
        _LOG.warning("engine cache: the entry of %s cannot be used, the engine is built again: %s", name, error)
        cache.remove(key)
        return None
    return engine
