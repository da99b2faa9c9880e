"""The self-check's tolerances lie between what rounding does and what a wrong engine does, for both families."""

from __future__ import annotations

import numpy as np
import pytest
from exported import export_with_random_weights
from spaces import STAGES

from anydepth_perception.bundle import Bundle, ReferenceRows, choose_rows, find_bundle
from anydepth_perception.bundle.float16 import to_float16
from anydepth_perception.bundle.plain_run import run_plainly, smooth_noise
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.execution.self_check import TOLERANCES, difference

SHIPPED, RANDOM_DETR = "aisle-yolo-t", "detr-r18"
DETR_SIZE = 160


class Checked:
    """A bundle, an image, and the rows that its full configuration gives."""

    def __init__(self, bundle: Bundle, image: np.ndarray, precision: str = "float32") -> None:
        self.bundle = bundle
        self.precision = precision
        self.image = image
        self.rows: ReferenceRows = choose_rows(*self._outputs(bundle.full))

    def difference_of(self, config: DepthConfig) -> float:
        """How far `config` is from full."""
        return self._difference(*self._outputs(config))

    def difference_of_float16(self) -> float:
        """How far full is from itself in float16."""
        outputs = run_plainly(to_float16(self.bundle.compose(self.bundle.full), ("boxes", "logits")), self.image)
        return self._difference(outputs["boxes"], outputs["logits"])

    def _outputs(self, config: DepthConfig) -> tuple[np.ndarray, np.ndarray]:
        outputs = run_plainly(self.bundle.compose(config), self.image)
        return outputs["boxes"], outputs["logits"]

    def _difference(self, boxes: np.ndarray, logits: np.ndarray) -> float:
        ordered = self.bundle.manifest.family == "yolo"
        return difference(self.rows, boxes, logits, ordered=ordered, precision=self.precision)


@pytest.fixture(scope="module", params=[SHIPPED, RANDOM_DETR])
def checked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    if request.param == RANDOM_DETR:
        exported = export_with_random_weights(RANDOM_DETR, DETR_SIZE, tmp_path_factory.mktemp("bundles"))
        return Checked(exported.bundle, exported.image)
    bundle = Bundle.load(find_bundle(SHIPPED))
    reference = bundle.read_reference()
    assert reference is not None
    return Checked(bundle, reference.image)


def test_rounding_to_float16_is_far_within_the_tolerance(checked: Checked) -> None:
    assert TOLERANCES["float32"] < checked.difference_of_float16() < TOLERANCES["float16"] / 5


def test_the_wrong_path_of_any_stage_is_noticed(checked: Checked) -> None:
    for stage in STAGES:
        assert checked.difference_of(without(checked.bundle, stage)) > TOLERANCES["float16"], stage


def test_the_wrong_exit_is_noticed(checked: Checked) -> None:
    for exit_index in range(1, checked.bundle.space.num_exits):
        moved = checked.difference_of(DepthConfig(checked.bundle.full.full_paths, exit_index))
        assert moved > TOLERANCES["float16"], exit_index


def test_the_wrong_path_is_noticed_at_the_tolerance_of_int8_as_well() -> None:
    bundle = Bundle.load(find_bundle(SHIPPED))
    checked = Checked(bundle, smooth_noise(bundle), "int8")
    for stage in STAGES:
        assert checked.difference_of(without(bundle, stage)) > TOLERANCES["int8"], stage


def without(bundle: Bundle, stage: str) -> DepthConfig:
    """Full but for one stage."""
    return DepthConfig(tuple(other != stage for other in STAGES), bundle.full.exit)
