"""A depth that is set while frames are served: its engines are built beside serving, and used once they are ready."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from anydepth_perception.depth.controller import AUTO
from anydepth_perception.depth.space import DepthConfig, DepthConfigError
from anydepth_perception.serving.model import Model

_LOG = logging.getLogger(__name__)


class DepthChanges:
    """What `depth` asks for against what runs: the depth before serves on until the new one is ready, or for good.

    `follow` belongs to the thread that serves. At most one depth is built at a time, in a thread of its own; what was
    asked for meanwhile and no longer is, is left out.
    """

    def __init__(self, model: Model, beside: Callable[[Callable[[], None]], None]) -> None:
        """Follows no depth yet.

        Args:
            model: whose engines are built and whose controller is told.
            beside: runs work beside serving.
        """
        self._model = model
        self._beside = beside
        self._taken = ""
        self._refused: tuple[str, str] | None = None
        self._build: _Build | None = None

    @property
    def problem(self) -> str:
        """Why the depth that is set is not the one that runs, in one line; empty where it is or is being built."""
        return self._refused[1] if self._refused is not None else ""

    @property
    def building(self) -> str:
        """The depth that is being built, empty where none is."""
        build = self._build
        return str(build.config) if build is not None else ""

    def follow(self, depth: str) -> None:
        """Takes `depth` where it is ready, else has it built; to be called before each frame.

        A depth that cannot be built is told once, and not tried again until another one was set.
        """
        self._collect(depth)
        if self._refused is not None and self._refused[0] == depth:
            return
        self._refused = None
        if depth == self._taken:
            return
        if depth == AUTO:
            self._take(depth, AUTO)
            return
        try:
            config = self._model.bundle.space.parse(depth)
        except DepthConfigError as error:
            self._refuse(depth, error)
            return
        if self._model.detector.is_ready(config):
            self._take(depth, config)
        elif self._build is None:
            self._build = build = _Build(config)
            _LOG.info("depth %s is being built, %s serves meanwhile", depth, self._model.controller.depth)
            self._beside(lambda: build.run(self._model.detector.ensure_for_now))

    def _collect(self, depth: str) -> None:
        """Sees whether the build has ended; one that failed counts only where its depth is still asked for."""
        build = self._build
        if build is None or not build.done:
            return
        self._build = None
        if build.error is None or depth in (AUTO, self._taken):
            return
        try:
            asked = self._model.bundle.space.parse(depth)
        except DepthConfigError:
            return
        if asked == build.config:
            self._refuse(depth, build.error)

    def _take(self, depth: str, config: str | DepthConfig) -> None:
        self._model.controller.set_depth(config)
        self._taken = depth

    def _refuse(self, depth: str, error: BaseException) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        serving = self._model.controller.depth
        self._refused = depth, f"depth {depth} cannot be used, {serving} serves on: {reason}"
        _LOG.error("%s", self._refused[1])


class _Build:
    """One configuration whose engines are made ready in another thread."""

    def __init__(self, config: DepthConfig) -> None:
        self.config = config
        self.error: Exception | None = None
        self.done = False

    def run(self, ensure: Callable[[DepthConfig], None]) -> None:
        try:
            ensure(self.config)
        except Exception as error:  # whatever a backend does, the depth before serves on
            self.error = error
        self.done = True


def in_a_thread(work: Callable[[], None]) -> None:
    """Runs `work` in a thread of its own: a daemon: a process that has to end does not wait for a build."""
    threading.Thread(target=work, name="depth-builder", daemon=True).start()
