"""Planned memory: nothing that is still to be read is overwritten, whatever the pipeline."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anydepth_perception.backends.host_memory import allocate_on_host
from anydepth_perception.bundle import Segment, TensorSpec
from anydepth_perception.execution.memory import ALIGNMENT, Lifetime, find_lifetimes, place

MOST_GROUPS = 6


def tensor(name: str, size: int = 4) -> TensorSpec:
    return TensorSpec(name, (size,), "uint8")


def segment(name: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Segment:
    return Segment(name, f"{name}.onnx", "", 0.0, tuple(inputs), tuple(outputs))


@st.composite
def pipelines(draw: st.DrawFn) -> list[list[list[Segment]]]:
    """Groups of segments, each with one or two interchangeable ways: same outputs, any earlier tensors read."""
    groups: list[list[list[Segment]]] = []
    known: list[TensorSpec] = []
    for step in range(draw(st.integers(1, MOST_GROUPS))):
        written = [tensor(f"t{step}.{i}", draw(st.integers(1, 2000))) for i in range(draw(st.integers(1, 3)))]
        ways = []
        for way in range(draw(st.integers(1, 2))):
            route, available = [], list(known)
            for spec in written:
                read = draw(st.lists(st.sampled_from(available), max_size=3)) if available else []
                route.append(segment(f"{spec.name}.{way}", read, [spec]))
                available.append(spec)
            ways.append(route)
        groups.append(ways)
        known.extend(written)
    return groups


def segments_of(groups: list[list[list[Segment]]]) -> list[list[Segment]]:
    """The segments of all ways through each group."""
    return [[part for way in ways for part in way] for ways in groups]


@given(pipelines(), st.data())
def test_every_tensor_holds_what_was_written_when_it_is_read(groups: list[list[list[Segment]]], data: st.DataObject):
    results = [groups[-1][0][-1].outputs[0].name]
    lives = find_lifetimes(segments_of(groups), results)
    memory = {name: buffer.host for name, buffer in allocate_on_host(place(lives)).items()}
    stamps: dict[str, int] = {}
    for ways in groups:
        route = data.draw(st.sampled_from(ways))
        inner: set[str] = set()
        for part in route:
            for spec in part.inputs:
                if spec.name not in inner:
                    assert (memory[spec.name] == stamps[spec.name]).all()
            inner.update(spec.name for spec in part.outputs)
        for part in route:
            for spec in part.outputs:
                stamps[spec.name] = len(stamps) + 1
                if spec.name in memory:
                    memory[spec.name][:] = stamps[spec.name]
    assert (memory[results[0]] == stamps[results[0]]).all()


@given(pipelines())
def test_the_block_is_never_larger_than_without_sharing(groups: list[list[list[Segment]]]) -> None:
    lives = find_lifetimes(segments_of(groups), [groups[-1][0][-1].outputs[0].name])
    apart = sum(-(-life.spec.shape[0] // ALIGNMENT) * ALIGNMENT for life in lives)
    at_once = max(
        sum(life.spec.shape[0] for life in lives if life.first <= step <= life.last) for step in range(MOST_GROUPS)
    )
    assert at_once <= max(placement.end for placement in place(lives)) <= apart


def test_tensors_inside_one_group_take_no_memory() -> None:
    a, b = tensor("a"), tensor("b")
    ways = [[[segment("one", [], [a]), segment("two", [a], [b])]], [[segment("three", [b], [tensor("c")])]]]
    assert [life.spec.name for life in find_lifetimes(segments_of(ways), ["c"])] == ["b", "c"]


def test_a_tensor_lives_until_the_last_of_all_ways_has_read_it() -> None:
    a, b, c = tensor("a"), tensor("b"), tensor("c")
    ways = [[[segment("one", [], [a])]], [[segment("two", [a], [b])]], [
        [segment("short", [b], [c])], [segment("long", [b, a], [c])]
    ]]
    assert find_lifetimes(segments_of(ways), ["c"])[0] == Lifetime(a, 0, 2)


def test_tensors_of_separate_lives_share_memory() -> None:
    lives = [Lifetime(tensor("a", 512), 0, 1), Lifetime(tensor("b", 512), 1, 2), Lifetime(tensor("c", 512), 2, 3)]
    offsets = [placement.offset for placement in place(lives)]
    assert offsets[0] == offsets[2] != offsets[1]


def test_offsets_are_aligned() -> None:
    lives = [Lifetime(tensor(f"t{size}", size), 0, 1) for size in (1, 300, 7)]
    assert all(placement.offset % ALIGNMENT == 0 for placement in place(lives))
    assert np.ptp([placement.offset for placement in place(lives)]) > 0
