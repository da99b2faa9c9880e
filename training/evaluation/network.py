"""Runs a detector at many depths on one image, each stage once for each way of reaching it.

What a stage puts out depends on the paths of the stages before it alone. The configurations form a tree, whose
edges are segments: eight stages of two paths have 510 of them, where 256 separate runs would take 2048.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anydepth_perception.backends.base import Backend, Buffer, Engine, Placement
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig
from training.families import segment_modules
from training.models.detector import AnyDepthDetector
from training.models.segments import segments_by_step


class Network(Protocol):
    """A detector in segments. Each tensor between segments has one place, which the next writer overwrites."""

    batch_size: int
    """Images that `load` takes at most."""

    def route(self, config: DepthConfig) -> Sequence[str]:
        """Names of the segments that run for `config`, in execution order."""
        ...

    def load(self, images: np.ndarray) -> None:
        """Takes images, uint8 [B, H, W, 3] RGB, as the preprocessor fits them."""
        ...

    def run(self, segment: str) -> None:
        """Runs one segment on what the segments before it wrote last."""
        ...

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [B, N, 4] in [0, 1] of the input and logits [B, N, C], as written last."""
        ...


def walk(network: Network, configs: Iterable[DepthConfig]) -> Iterator[list[DepthConfig]]:
    """Runs `configs` on the loaded images, in an order that runs no segment twice on the same input.

    Yields the configurations whose outputs the network holds at that moment: more than one where a stage has
    nothing to skip. Siblings overwrite each other's tensors only after everything behind them is done.
    """
    yield from _visit(network, [(config, network.route(config)) for config in configs], 0)


def _visit(
    network: Network, routes: Sequence[tuple[DepthConfig, Sequence[str]]], step: int
) -> Iterator[list[DepthConfig]]:
    done = [config for config, route in routes if len(route) == step]
    if done:
        yield done
    branches: dict[str, list[tuple[DepthConfig, Sequence[str]]]] = {}
    for config, route in routes:
        if len(route) > step:
            branches.setdefault(route[step], []).append((config, route))
    for segment, rest in branches.items():
        network.run(segment)
        yield from _visit(network, rest, step + 1)


class BundleNetwork:
    """The segments of a bundle, each an engine of its own, on one set of buffers."""

    batch_size = 1

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Compiles every segment.

        Raises:
            BundleError: a segment cannot be read.
            BackendError: the backend refuses a segment.
        """
        self._manifest = bundle.manifest
        self._backend = backend
        self._engines: dict[str, Engine] = {}
        self._buffers: dict[str, Buffer] = {}
        for name, segment in bundle.manifest.segments.items():
            outputs = tuple(spec.name for spec in segment.outputs)
            engine = backend.compile(bundle.compose_segments([segment], outputs, name))
            missing = [spec for spec in (*engine.inputs, *engine.outputs) if spec.name not in self._buffers]
            for spec in missing:
                self._buffers.update(backend.allocate([Placement(spec)]))
            engine.bind(self._buffers)
            self._engines[name] = engine

    def route(self, config: DepthConfig) -> Sequence[str]:
        """See `Network`."""
        return self._manifest.segment_names(config)

    def load(self, images: np.ndarray) -> None:
        """See `Network`."""
        buffer = self._buffers[self._manifest.input.name]
        np.copyto(buffer.host, images)
        buffer.upload()

    def run(self, segment: str) -> None:
        """See `Network`."""
        self._engines[segment].run()

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Network`."""
        names = (self._manifest.outputs.boxes, self._manifest.outputs.logits)
        for name in names:
            self._buffers[name].download()
        self._backend.synchronize()
        return self._buffers[names[0]].host, self._buffers[names[1]].host


class TorchNetwork:
    """The segments of a network in PyTorch, batch norms folded as for export, on the network's own device."""

    def __init__(self, model: AnyDepthDetector, image_size: tuple[int, int], batch_size: int = 1) -> None:
        """`image_size` is (height, width). Later changes of the model's weights are not seen."""
        self.batch_size = batch_size
        self._device = next(model.parameters()).device
        self._segments = {segment.name: segment for segment in segment_modules(model, image_size)}
        for segment in self._segments.values():
            segment.module.to(self._device).eval()
        self._space = model.space
        self._names = segments_by_step(model.space)
        self._tensors: dict[str, Tensor] = {}

    def route(self, config: DepthConfig) -> Sequence[str]:
        """See `Network`."""
        return [name for step in self._space.route(config) for name in self._names[step]]

    def load(self, images: np.ndarray) -> None:
        """See `Network`."""
        self._tensors = {"images": torch.from_numpy(images).to(self._device)}

    @torch.no_grad()
    def run(self, segment: str) -> None:
        """See `Network`."""
        part = self._segments[segment]
        written = part.module(*(self._tensors[name] for name in part.inputs))
        self._tensors.update(zip(part.outputs, written if isinstance(written, tuple) else (written,), strict=True))

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Network`."""
        boxes, logits = (self._tensors[name].float().cpu().numpy() for name in ("boxes", "logits"))
        return boxes, logits
