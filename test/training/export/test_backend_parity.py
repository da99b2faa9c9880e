"""Every backend puts out what PyTorch does, whole and staged: the shipped bundle and a DETR with random weights."""

from __future__ import annotations

import numpy as np
import pytest
from exported import Exported, export_with_random_weights

from anydepth_perception.backends import Backend, create_backend
from anydepth_perception.bundle import Bundle, find_bundle
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.detection.preprocess import Preprocessor
from anydepth_perception.execution import Execution
from training.data.aisle import render_image
from training.recipes.weights import load_weights

NUM_MIXTURES = 10
TOLERANCE = 1e-4
SHIPPED, RANDOM_DETR = "aisle-yolo-t", "detr-r18"
DETR_SIZE = 160

Outputs = list[tuple[DepthConfig, np.ndarray]]


@pytest.fixture(scope="module", params=[SHIPPED, RANDOM_DETR])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if request.param == RANDOM_DETR:
        return export_with_random_weights(RANDOM_DETR, DETR_SIZE, tmp_path_factory.mktemp("bundles"))
    bundle = Bundle.load(find_bundle(SHIPPED))
    preprocess = Preprocessor(bundle.manifest.input.height, bundle.manifest.input.width)
    preprocess(render_image("val", 0, (640, 480)).image)
    return Exported(load_weights(bundle.path.with_name(f"{SHIPPED}.safetensors")).model, bundle, preprocess.buffer)


@pytest.fixture(scope="module")
def in_torch(exported: Exported) -> Outputs:
    return list(exported.configurations(NUM_MIXTURES))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return create_backend(request.param)


def raw_outputs(execution: Execution, config: DepthConfig, image: np.ndarray) -> np.ndarray:
    """Boxes and logits as rows [N, 4 + C]."""
    np.copyto(execution.image, image)
    execution.run(config)
    return np.concatenate([execution.boxes, execution.logits], axis=2)[0]


def test_whole_execution_agrees_with_torch(exported: Exported, in_torch: Outputs, backend: Backend) -> None:
    for config, expected in in_torch:
        execution = Execution(exported.bundle, backend)  # one each, so that memory holds one at a time
        execution.ensure(config)
        assert exported.difference(raw_outputs(execution, config, exported.image), expected) < TOLERANCE, str(config)


def test_staged_execution_agrees_with_torch(exported: Exported, in_torch: Outputs, backend: Backend) -> None:
    execution = Execution(exported.bundle, backend, exported.bundle.manifest.space.names[1:])
    for config, expected in in_torch:
        assert exported.difference(raw_outputs(execution, config, exported.image), expected) < TOLERANCE, str(config)
