"""Many depths at once: what a walk over the tree of choices puts out is what each configuration puts out alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import Exported, export_with_random_weights, to_float, unordered_difference
from spaces import EIGHT

from anydepth_perception.backends import create_backend
from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig
from training.data.aisle import render_image
from training.evaluation.network import BundleNetwork, TorchNetwork, walk
from training.families import build_model
from training.recipes.weights import load_weights

MODELS = Path(__file__).parents[3] / "models"


class Recorder:
    """A network that keeps what every tensor was made of, and counts runs."""

    batch_size = 1

    def __init__(self) -> None:
        self.trace: dict[int, str] = {}
        self.runs: Counter[str] = Counter()

    def route(self, config: DepthConfig) -> Sequence[str]:
        # The last stage has nothing to skip: both paths run one segment.
        return [f"{index}{'F' if full or index == 7 else 'E'}" for index, full in enumerate(config.full_paths)]

    def run(self, segment: str) -> None:
        step = int(segment[0])
        self.trace[step] = self.trace.get(step - 1, "") + segment[1]
        self.runs[segment] += 1


def test_walk_runs_each_segment_once_for_each_way_to_it_and_holds_the_right_outputs() -> None:
    network = Recorder()
    seen = []
    for configs in walk(network, list(EIGHT.all())):  # type: ignore[arg-type]
        assert len(configs) == 2
        for config in configs:
            assert network.trace[7] == "".join("F" if full else "E" for full in (*config.full_paths[:7], True))
        seen += configs
    assert sorted(map(str, seen)) == sorted(map(str, EIGHT.all()))
    assert sum(network.runs.values()) == sum(2**step for step in range(1, 8)) + 2**7


@pytest.fixture(params=["detr-r18", "shipped"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> Exported:
    """A network and its bundle: a random DETR, and the shipped YOLO."""
    if request.param == "detr-r18":
        return export_with_random_weights("detr-r18", 128, tmp_path)
    bundle = Bundle.load(MODELS / "aisle-yolo-t.anydepth", verify=False)
    size = (bundle.manifest.input.width, bundle.manifest.input.height)
    image = render_image("val", 0, size).image[None]
    return Exported(load_weights(MODELS / "aisle-yolo-t.safetensors").model, bundle, image)


def test_outputs_are_those_of_each_configuration_alone(exported: Exported) -> None:
    expected = dict(exported.configurations(num_mixtures=3))
    # Siblings that overwrite what the others read would show in these.
    neighbours = [DepthConfig(tuple(reversed(c.full_paths)), c.exit) for c in expected]
    configs = list(dict.fromkeys([*neighbours, *expected]))
    image_size = exported.image.shape[1:3]
    for network in (
        BundleNetwork(exported.bundle, create_backend("onnxruntime")),
        TorchNetwork(exported.model, image_size),
    ):
        network.load(exported.image)
        for same in walk(network, configs):
            boxes, logits = network.outputs()
            found = np.concatenate([boxes, logits], axis=2)[0]
            for config in set(same) & set(expected):
                assert exported.difference(found, expected[config]) < 2e-3, f"{config} on {type(network).__name__}"


def test_batch_holds_what_its_images_hold_alone() -> None:
    torch.manual_seed(0)
    model = build_model("detr-r18", 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    network = TorchNetwork(model, (96, 96), batch_size=2)
    network.load(images)
    (config,) = next(walk(network, [model.space.base]))
    boxes, logits = network.outputs()
    for row in range(2):
        with torch.no_grad():
            alone = model(to_float(images[row : row + 1]), config)
        expected = torch.cat([alone["boxes"] / 96, alone["logits"]], dim=2)[0].numpy()
        assert unordered_difference(np.concatenate([boxes, logits], axis=2)[row], expected) < 1e-3
