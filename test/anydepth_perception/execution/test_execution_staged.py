"""Staged execution: the numbers of whole execution, decisions within a frame, no memory taken by frames."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.space import DepthConfig, DepthConfigError
from anydepth_perception.execution import Execution, decision_points_of
from anydepth_perception.profile.load import process_memory_bytes


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.load(tiny_bundle_path)


@pytest.fixture(scope="module")
def staged(bundle: Bundle) -> Execution:
    execution = Execution(bundle, create_backend(threads=1), bundle.space.default_points)
    fill(execution.image)
    return execution


def fill(image: np.ndarray, seed: int = 0) -> None:
    image[:] = np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)


def mixtures(count: int) -> list[DepthConfig]:
    picks = random.Random(2)
    return [DepthConfig(tuple(picks.random() < 0.5 for _ in range(8))) for _ in range(count)]


def outputs(execution: Execution, config: DepthConfig) -> np.ndarray:
    execution.run(config)
    return np.concatenate([execution.boxes, execution.logits], axis=2)


@pytest.fixture(scope="module")
def shipped() -> tuple[Execution, Execution]:
    bundle, backend = Bundle.load(find_bundle("aisle-yolo-t")), create_backend("onnxruntime", threads=1)
    both = Execution(bundle, backend), Execution(bundle, backend, bundle.space.default_points)
    for execution in both:
        fill(execution.image)
    return both


@pytest.mark.parametrize("config", [DepthConfig((True,) * 8), DepthConfig((False,) * 8), *mixtures(10)], ids=str)
def test_the_shipped_bundle_puts_out_the_same_staged_and_whole(
    shipped: tuple[Execution, Execution], config: DepthConfig
) -> None:
    whole, staged = shipped
    whole.ensure(config)
    np.testing.assert_allclose(outputs(staged, config), outputs(whole, config), atol=1e-5)


@pytest.mark.parametrize(
    "points",
    [("p5",), ("p2", "p3", "p4", "p5", "fpn_p4", "fpn_p3", "pan_p4", "pan_p5"), ("pan_p4", "fpn_p4")],
    ids=["one", "every stage", "two"],
)
def test_decision_points_do_not_change_the_numbers(bundle: Bundle, points: tuple[str, ...]) -> None:
    backend = create_backend(threads=1)
    whole, staged = Execution(bundle, backend), Execution(bundle, backend, points)
    for config in mixtures(3):
        whole.ensure(config)
        for execution in (whole, staged):
            fill(execution.image)
        np.testing.assert_allclose(outputs(staged, config), outputs(whole, config), atol=1e-5)


def test_every_configuration_runs(staged: Execution, bundle: Bundle) -> None:
    found = {outputs(staged, config).tobytes() for config in bundle.space.all()}
    assert len(found) == 256


def test_without_a_callback_what_was_asked_for_runs_and_each_group_is_timed(staged: Execution) -> None:
    config = mixtures(1)[0]
    executed = staged.run(config)
    assert executed.config == config
    assert len(executed.group_ms) == len(staged.groups) == 4
    assert min(executed.group_ms) > 0


def test_the_callback_is_asked_at_each_point_with_the_time_since_the_start(staged: Execution, bundle: Bundle) -> None:
    asked: list[tuple[str, float]] = []

    def go_on(point: str, elapsed_ms: float) -> DepthConfig:
        asked.append((point, elapsed_ms))
        return bundle.full

    staged.run(bundle.full, go_on)
    assert [point for point, _ in asked] == ["stem", "p4", "fpn_p4", "pan_p4"] == [group[0] for group in staged.groups]
    times = [elapsed_ms for _, elapsed_ms in asked]
    assert times == sorted(times)
    assert times[0] >= 0


def test_what_follows_a_point_can_be_shortened(staged: Execution, bundle: Bundle) -> None:
    shortened = DepthConfig.parse("FFFF.FFEE")
    expected = outputs(staged, shortened)
    executed = staged.run(bundle.full, lambda point, _: shortened if point == "pan_p4" else bundle.full)
    assert executed.config == shortened
    np.testing.assert_array_equal(np.concatenate([staged.boxes, staged.logits], axis=2), expected)


def test_a_choice_that_contradicts_what_has_run_is_refused(staged: Execution, bundle: Bundle) -> None:
    with pytest.raises(DepthConfigError, match=r"EEEE\.EEEE was chosen before fpn_p4, but stem, .* ran as FFFF\.FFFF"):
        staged.run(bundle.full, lambda point, _: bundle.base if point == "fpn_p4" else bundle.full)


def test_a_frame_after_a_refused_choice_is_served(staged: Execution, bundle: Bundle) -> None:
    expected = outputs(staged, bundle.base)
    with pytest.raises(DepthConfigError):
        staged.run(bundle.full, lambda point, _: bundle.base if point == "pan_p4" else bundle.full)
    np.testing.assert_array_equal(outputs(staged, bundle.base), expected)


def test_an_exit_that_the_bundle_lacks_is_refused(staged: Execution) -> None:
    with pytest.raises(DepthConfigError, match="has no decoder exits"):
        staged.ensure(DepthConfig((True,) * 8, exit=1))


def test_the_image_is_left_as_it_was(staged: Execution, bundle: Bundle) -> None:
    before = staged.image.copy()
    staged.run(bundle.full)
    np.testing.assert_array_equal(staged.image, before)


def test_weights_are_in_memory_once(bundle: Bundle) -> None:
    backend = create_backend("onnxruntime", threads=1)
    whole = Execution(bundle, backend)
    whole.ensure(bundle.full)
    whole.ensure(bundle.base)
    alone = backend.weight_bytes
    kept = Execution(bundle, backend, bundle.space.default_points)
    assert backend.weight_bytes == alone
    assert kept.groups


@pytest.mark.parametrize("name", ["whole", "staged"])
def test_frames_at_changing_depths_keep_no_memory(bundle: Bundle, name: str) -> None:
    execution = Execution(bundle, create_backend(threads=1), decision_points_of(name, bundle.space))
    configs = mixtures(4)
    for config in configs:
        execution.ensure(config)

    def growth_bytes(frames: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for index in range(frames):
            execution.run(configs[index % len(configs)])
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        growth_bytes(8)
        # Other threads of the test process allocate now and then; frames that keep memory grow every time.
        assert min(growth_bytes(40) for _ in range(5)) < 4096
    finally:
        tracemalloc.stop()


def test_resident_memory_stays_over_many_frames(staged: Execution, bundle: Bundle) -> None:
    configs = list(bundle.space.all())
    picks = random.Random(3)

    def run(frames: int) -> int:
        for _ in range(frames):
            staged.run(picks.choice(configs))
        return process_memory_bytes() or 0

    settled_bytes = run(300)
    assert run(1000) - settled_bytes < 2 << 20


def test_decision_points_are_refused_in_whole_execution(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="execution whole has none"):
        decision_points_of("whole", bundle.space, ("p5",))


def test_unknown_execution_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="execution 'half' is unknown, accepted are whole, staged"):
        decision_points_of("half", bundle.space)
