"""Whole execution: engines added while others serve disturb nothing, and a missing one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfigError
from anydepth_perception.execution import Execution


@pytest.fixture
def whole(tiny_bundle_path: Path) -> Execution:
    bundle = Bundle.load(tiny_bundle_path)
    execution = Execution(bundle, create_backend(threads=1))
    execution.ensure(bundle.base)
    execution.image[:] = np.random.default_rng(0).integers(0, 256, execution.image.shape, np.uint8)
    return execution


def test_adding_an_engine_leaves_the_outputs_of_the_last_run(whole: Execution, tiny_bundle_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle_path)
    whole.run(bundle.base)
    before = whole.logits.copy()
    whole.ensure(bundle.full)
    np.testing.assert_array_equal(whole.logits, before)
    whole.run(bundle.full)
    assert np.abs(whole.logits - before).max() > 1e-4


def test_a_configuration_without_engine_is_refused(whole: Execution, tiny_bundle_path: Path) -> None:
    with pytest.raises(DepthConfigError, match=r"FFFF\.FFFF has no engine, compiled are EEEE\.EEEE"):
        whole.run(Bundle.load(tiny_bundle_path).full)
