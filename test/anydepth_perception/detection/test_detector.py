"""The detector: any compiled depth on any frame, the same result each time, times reported."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig, DepthConfigError
from anydepth_perception.detection.detector import MOST_PASSING, Detector, ImageError

MIXTURE = DepthConfig.parse("FFEE.FFEE")


@pytest.fixture(scope="module")
def detector(tiny_bundle_path: Path) -> Detector:
    bundle = Bundle.load(tiny_bundle_path)
    detector = Detector(bundle, create_backend(threads=1), configs=[bundle.base, MIXTURE, bundle.full])
    detector.warm_up()
    return detector


def picture(height: int = 48, width: int = 80) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def test_detections_lie_in_the_source_image_best_first(detector: Detector) -> None:
    result = detector.detect(picture(), detector.bundle.full, score_threshold=0.05)
    found = result.detections
    assert len(found) > 0
    assert found.boxes_xyxy.shape == (len(found), 4)
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [80, 48, 80, 48]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.class_ids.tolist()) <= {0, 1, 2}


def test_times_and_configuration_are_reported(detector: Detector) -> None:
    result = detector.detect(picture(), MIXTURE)
    assert result.config == MIXTURE
    assert min(result.preprocess_ms, result.inference_ms, result.postprocess_ms) > 0


def test_depth_switches_leave_no_trace(detector: Detector) -> None:
    image = picture()
    expected = {config: detector.detect(image, config, score_threshold=0.05).detections for config in detector.configs}
    rng = np.random.default_rng(0)
    for _ in range(50):
        config = detector.configs[rng.integers(len(detector.configs))]
        found = detector.detect(image, config, score_threshold=0.05).detections
        np.testing.assert_array_equal(found.boxes_xyxy, expected[config].boxes_xyxy)
        np.testing.assert_array_equal(found.scores, expected[config].scores)


@pytest.fixture
def few(tiny_bundle_path: Path) -> Detector:
    """A detector that keeps base alone."""
    bundle = Bundle.load(tiny_bundle_path)
    return Detector(bundle, create_backend(threads=1), configs=[bundle.base])


def others_of(detector: Detector) -> list[DepthConfig]:
    return [config for config in detector.space.all() if config not in detector.configs]


def engines_of(detector: Detector) -> int:
    return len(detector._execution._engines)


def test_of_many_depths_that_are_tried_only_the_last_used_keep_engines(few: Detector) -> None:
    tried = others_of(few)[: MOST_PASSING + 3]
    for config in tried:
        few.ensure_for_now(config)
    assert [config for config in tried if few.is_ready(config)] == tried[3:]
    assert engines_of(few) == 1 + MOST_PASSING and few.configs == (few.space.base,)
    few.detect(picture(), tried[-1])
    few.detect(picture(), few.space.base)
    with pytest.raises(DepthConfigError, match="has no engine"):
        few.detect(picture(), tried[0])


def test_depth_that_serves_frames_outlasts_those_that_are_only_tried(few: Detector) -> None:
    serving, *tried = others_of(few)[: 3 * MOST_PASSING]
    few.ensure_for_now(serving)
    for config in tried:
        few.ensure_for_now(config)
        few.detect(picture(), serving)
    assert few.is_ready(serving)


def test_released_depth_can_be_made_ready_again_and_finds_the_same(few: Detector) -> None:
    first, *tried = others_of(few)[: MOST_PASSING + 1]
    few.ensure_for_now(first)
    before = few.detect(picture(), first, score_threshold=0.05).detections
    for config in tried:
        few.ensure_for_now(config)
    assert not few.is_ready(first)
    few.ensure_for_now(first)
    np.testing.assert_array_equal(
        few.detect(picture(), first, score_threshold=0.05).detections.boxes_xyxy, before.boxes_xyxy
    )


def test_calls_at_every_depth_keep_few_engines(few: Detector) -> None:
    for config in others_of(few)[:20]:
        few(picture(), depth=config)
    assert engines_of(few) == 1 + MOST_PASSING


def test_staged_execution_has_every_depth_ready_and_releases_nothing(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    staged = Detector(bundle, create_backend(threads=1), configs=[], execution="staged")
    before = engines_of(staged)
    for config in others_of(staged)[:10]:
        staged.ensure_for_now(config)
        assert staged.is_ready(config)
    assert engines_of(staged) == before


def test_detections_of_a_frame_survive_the_next_frame(detector: Detector) -> None:
    first = detector.detect(picture(), MIXTURE, score_threshold=0.05).detections
    kept = first.boxes_xyxy.copy()
    detector.detect(np.zeros((48, 80, 3), np.uint8), MIXTURE, score_threshold=0.0)
    np.testing.assert_array_equal(first.boxes_xyxy, kept)


def test_color_order_matters(detector: Detector) -> None:
    image = picture()
    as_rgb = detector.detect(image, MIXTURE, score_threshold=0.0).detections
    as_bgr = detector.detect(image[:, :, ::-1], MIXTURE, color="bgr", score_threshold=0.0).detections
    np.testing.assert_allclose(as_bgr.scores, as_rgb.scores, atol=1e-6)
    swapped = detector.detect(image, MIXTURE, color="bgr", score_threshold=0.0).detections
    assert not np.allclose(swapped.scores, as_rgb.scores)


def test_configuration_without_engine_is_refused_until_ensured(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    detector = Detector(bundle, create_backend(threads=1), configs=[bundle.base])
    with pytest.raises(DepthConfigError, match=r"FFEE\.FFEE has no engine, compiled are EEEE\.EEEE"):
        detector.detect(picture(), MIXTURE)
    detector.ensure(MIXTURE)
    assert detector.configs == (bundle.base, MIXTURE)
    assert detector.detect(picture(), MIXTURE).config == MIXTURE


def test_engine_is_compiled_once(tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    backend = create_backend(threads=1)
    detector = Detector(bundle, backend, configs=[MIXTURE])
    monkeypatch.setattr(type(backend), "compile", lambda self, model: pytest.fail("compiled again"))
    detector.ensure(MIXTURE)


def test_exit_that_the_detector_lacks_is_refused(detector: Detector) -> None:
    with pytest.raises(DepthConfigError, match="has no decoder exits"):
        detector.ensure(DepthConfig((True,) * 8, exit=1))


def test_engines_can_be_added_while_frames_are_served(tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    detector = Detector(bundle, create_backend(threads=1), configs=[bundle.base])
    image = picture()
    expected = detector.detect(image, bundle.base, score_threshold=0.05).detections.scores
    adding = threading.Thread(target=lambda: [detector.ensure(config) for config in (MIXTURE, bundle.full)])
    adding.start()
    while adding.is_alive():
        np.testing.assert_array_equal(
            detector.detect(image, bundle.base, score_threshold=0.05).detections.scores, expected
        )
    adding.join()
    assert len(detector.configs) == 3


def test_good_image_after_a_bad_one_is_served(detector: Detector) -> None:
    with pytest.raises(ImageError):
        detector.detect(np.zeros((4, 4, 2), np.uint8), MIXTURE)
    assert len(detector.detect(picture(), MIXTURE, score_threshold=0.05).detections) > 0


def test_staged_and_whole_detect_the_same(detector: Detector) -> None:
    staged = Detector(detector.bundle, detector.backend, configs=[MIXTURE], execution="staged")
    expected = detector.detect(picture(), MIXTURE, score_threshold=0.05).detections
    found = staged.detect(picture(), MIXTURE, score_threshold=0.05).detections
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_configuration_chosen_within_the_frame_is_reported(detector: Detector) -> None:
    staged = Detector(detector.bundle, detector.backend, configs=(), execution="staged", decision_points=["pan_p4"])
    shorter = DepthConfig.parse("FFFF.FFEE")
    result = staged.detect(
        picture(),
        detector.bundle.full,
        decide=lambda point, _: shorter if point in ("pan_p4", "head") else detector.bundle.full,
    )
    assert result.config == shorter
    assert len(result.group_ms) == len(staged.groups) == 2


def test_time_spent_counts_from_the_start_of_the_frame(detector: Detector) -> None:
    elapsed_ms: list[float] = []

    def go_on(point: str, milliseconds: float) -> DepthConfig:
        elapsed_ms.append(milliseconds)
        return MIXTURE

    result = detector.detect(picture(), MIXTURE, decide=go_on)
    assert len(elapsed_ms) == 1
    assert elapsed_ms[0] >= result.preprocess_ms
    assert len(result.group_ms) == 1


def test_whole_execution_runs_what_the_callback_chooses(detector: Detector) -> None:
    assert detector.detect(picture(), MIXTURE, decide=lambda *_: detector.bundle.base).config == detector.bundle.base
