"""Records what served frames took, in the format that `anydepth_perception.depth.simulation --trace` replays."""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import Step
from anydepth_perception.detection.detector import DetectionResult

_LOG = logging.getLogger(__name__)

MAX_FRAMES = 1_000_000
"""More are not recorded: nine hours at 30 Hz, some 40 MB of memory."""


def check_writable(path: str) -> None:
    """Refuses a path, unless it is empty, that no file can be written to. Raises: ValueError, naming what to do."""
    if not path:
        return
    file = Path(path).expanduser()
    if file.suffix != ".npz":
        raise ValueError(f"record_times is {path!r}, expected the path of an .npz file")
    if not file.parent.is_dir():
        raise ValueError(f"record_times: the folder {file.parent} does not exist, make it first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"record_times: {file} may not be written by this user")


class RecordedTimes:
    """Times of frames, kept in memory until they are saved; docs/control.md lists the arrays."""

    def __init__(self, bundle: Bundle, groups: Sequence[Sequence[str]], step_ms: Mapping[Step, float]) -> None:
        """Starts empty.

        Args:
            bundle: whose configurations and AP go into the file.
            groups: entries that run as one engine, as `Detector.groups` has them.
            step_ms: profiled milliseconds of every step.
        """
        self._bundle = bundle
        self._groups = groups
        self._step_ms = step_ms
        self._numbers: dict[str, int] = {}
        self._configurations = array("I")
        self._host_ms = array("f")  # preprocess, postprocess, frame
        self._group_ms = array("f")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._configurations)

    def add(self, result: DetectionResult, frame_ms: float) -> None:
        """Takes a frame in, which took `frame_ms` from its plan to its publication. Beyond `MAX_FRAMES` none is."""
        if len(self) >= MAX_FRAMES:
            return
        self._configurations.append(self._numbers.setdefault(str(result.config), len(self._numbers)))
        self._host_ms.extend((result.preprocess_ms, result.postprocess_ms, frame_ms))
        self._group_ms.extend(result.group_ms)

    def save(self, path: Path) -> None:
        """Writes the archive (.npz), all or nothing. Raises: OSError."""
        arrays = self.arrays()
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with unfinished.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes no mapping
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def save_or_tell(self, path: Path) -> None:
        """As `save`; the log says what became of it. Of no frames no file is made."""
        if not len(self):
            return
        try:
            self.save(path)
        except OSError as error:
            _LOG.error("record_times: %s is not written: %s", path, error.strerror or error)
        else:
            _LOG.info("record_times: %s frames in %s", len(self), path)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        space = self._bundle.space
        configs = list(space.all())
        host_ms = np.array(self._host_ms, np.float32).reshape(-1, 3)
        return {
            "entries": np.array([group[0] for group in self._groups]),
            "configuration": np.array(list(self._numbers) or [""])[np.array(self._configurations, np.intp)],
            "preprocess_ms": host_ms[:, 0],
            "postprocess_ms": host_ms[:, 1],
            "frame_ms": host_ms[:, 2],
            "entry_ms": np.array(self._group_ms, np.float32).reshape(-1, len(self._groups)),
            "steps": np.array([str(step) for step in space.steps]),
            "step_ms": np.array([self._step_ms[step] for step in space.steps], np.float32),
            "configurations": np.array([str(config) for config in configs]),
            "average_precision": np.array([self._bundle.average_precision(config) for config in configs], np.float32),
        }
