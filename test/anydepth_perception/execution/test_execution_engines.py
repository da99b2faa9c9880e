"""Executions take engines out of the cache where they are there and whole, and build them where not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError

from anydepth_perception.backends import BackendError
from anydepth_perception.backends.engine_cache import EngineCache
from anydepth_perception.backends.onnxruntime import OnnxRuntimeBackend
from anydepth_perception.bundle import Bundle
from anydepth_perception.execution import (
    EXECUTIONS,
    STAGED,
    WHOLE,
    Checked,
    EngineReady,
    Execution,
    decision_points_of,
)


class Counting(OnnxRuntimeBackend):
    """Says how many engines it had to build."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self.built = 0

    def build(self, model: onnx.ModelProto) -> bytes:
        self.built += 1
        return super().build(model)


@pytest.fixture
def bundle(tiny_bundle_path: Path, tmp_path: Path) -> Bundle:
    return Bundle.load(shutil.copytree(tiny_bundle_path, tmp_path / "tiny.anydepth"))


@pytest.fixture(params=EXECUTIONS)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "engines"


def prepare(execution: str, bundle: Bundle, folder: Path, backend: OnnxRuntimeBackend | None = None) -> Execution:
    points = decision_points_of(execution, bundle.space)
    prepared = Execution(bundle, backend or Counting(), points, cache=EngineCache(folder))
    for config in (bundle.full, bundle.base):
        prepared.ensure(config)
    return prepared


def outputs(execution: Execution, bundle: Bundle) -> list[np.ndarray]:
    execution.image[:] = np.random.default_rng(0).integers(0, 256, execution.image.shape, np.uint8)
    found = []
    for config in (bundle.full, bundle.base):
        execution.run(config)
        found += [execution.boxes.copy(), execution.logits.copy()]
    return found


def test_a_second_start_builds_nothing_and_gives_the_same_numbers(
    execution: str, bundle: Bundle, folder: Path
) -> None:
    first = outputs(prepare(execution, bundle, folder), bundle)
    backend = Counting()
    second = outputs(prepare(execution, bundle, folder, backend), bundle)
    assert backend.built == 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_start_reads_no_segment(
    execution: str, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(execution, bundle, folder)

    def refuse(*_: object) -> onnx.ModelProto:
        raise AssertionError("a segment was read")

    monkeypatch.setattr(Bundle, "read_segment", refuse)
    prepare(execution, bundle, folder)


def flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-7], lambda data: b""], ids=["flip", "truncate", "empty"])
def test_damaged_engines_are_built_again_and_give_the_same_numbers(
    execution: str, bundle: Bundle, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    first = outputs(prepare(execution, bundle, folder), bundle)
    entries = sorted(folder.glob("*.engine"))
    for path in entries:
        path.write_bytes(damage(path.read_bytes()))
    backend = Counting()
    second = outputs(prepare(execution, bundle, folder, backend), bundle)
    assert backend.built == len(entries)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_engines_of_swapped_names_are_built_again(bundle: Bundle, folder: Path) -> None:
    first = outputs(prepare(WHOLE, bundle, folder), bundle)
    one, other = sorted(folder.glob("*.engine"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for a, b in zip(first, outputs(prepare(WHOLE, bundle, folder), bundle), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_entry_that_the_library_refuses_is_built_again(
    bundle: Bundle, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Useless(Counting):
        """Puts engines into the cache that nothing can load, as a library with a fault in its serialisation does."""

        def build(self, model: onnx.ModelProto) -> bytes:
            return b"useless" + super().build(model)

        def load(self, serialized: bytes, name: str):  # type: ignore[no-untyped-def]
            return super().load(serialized.removeprefix(b"useless"), name)

    prepare(WHOLE, bundle, folder, Useless())
    backend = Counting()
    prepare(WHOLE, bundle, folder, backend)
    assert backend.built == 2
    assert "cannot be used, the engine is built again" in caplog.text
    prepare(WHOLE, bundle, folder, again := Counting())
    assert again.built == 0


def test_only_what_is_missing_is_built_and_checked(bundle: Bundle, folder: Path) -> None:
    prepare(STAGED, bundle, folder)
    entries = sorted(folder.glob("*.engine"))
    entries[0].unlink()
    events: list[EngineReady | Checked] = []
    Execution(bundle, Counting(), bundle.space.default_points, cache=EngineCache(folder), progress=events.append)
    engines = [event for event in events if isinstance(event, EngineReady)]
    checks = [event for event in events if isinstance(event, Checked)]
    assert [event.cached for event in engines].count(False) == 1
    assert len(checks) == 1
    assert sorted(folder.glob("*.engine")) == entries


def test_another_device_has_engines_of_its_own(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(WHOLE, bundle, folder)
    monkeypatch.setattr("anydepth_perception.backends.onnxruntime.describe_cpu", lambda: "Another CPU")
    backend = Counting()
    prepare(WHOLE, bundle, folder, backend)
    assert backend.built == 2


def test_a_bundle_whose_sums_were_not_checked_has_no_part_in_the_cache(bundle: Bundle, folder: Path) -> None:
    prepare(WHOLE, Bundle.load(bundle.path, verify=False), folder)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_does_not_stop_the_detector(
    execution: str, bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert outputs(prepare(execution, bundle, tmp_path / "file" / "engines"), bundle)
    assert len([record for record in caplog.records if "cache_dir" in record.getMessage()]) == 1


@pytest.mark.parametrize("error", [MemoryError, EncodeError])
def test_no_memory_for_a_graph_is_one_line(
    execution: str, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> onnx.ModelProto:
        raise error

    monkeypatch.setattr(Bundle, "compose_segments", fail)
    with pytest.raises(BackendError, match=r"no memory for the engine '.+'"):
        prepare(execution, bundle, folder)
