"""What the benchmark runs beside the bundle: monolithic exports, Hugging Face's RT-DETR, networks of random weights."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from anydepth_perception.backends import Backend, Placement
from anydepth_perception.bundle import Bundle, write_bundle
from training.bench.huggingface import random_rtdetr
from training.data.coco_names import COCO_NAMES
from training.export.manifest import manifest_of
from training.export.segments import OPSET, export_segments
from training.families import build_model, segment_modules
from training.models.detector import AnyDepthDetector
from training.models.detr import AnyDepthDetr
from training.models.detr_convert import from_huggingface
from training.recipes.recipe import Recipe

IMAGE_SEED = 3
"""An image at which the peer's query selection is far from a tie, so that both select the same."""

_WEIGHT_SEED = 1


class Monolithic(nn.Module):
    """A detector at one depth as a single module, exported in one piece as anyone would export a network."""

    def __init__(self, model: AnyDepthDetector, names: Sequence[str], image_size: tuple[int, int]) -> None:
        """`names` are the segments of the depth, in execution order; `image_size` is (height, width)."""
        super().__init__()
        segments = {segment.name: segment for segment in segment_modules(model, image_size)}
        self.parts = nn.ModuleList(segments[name].module for name in names)
        self.tensors = [(segments[name].inputs, segments[name].outputs) for name in names]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [1, H, W, 3] -> boxes and logits."""
        maps = {"images": images}
        for part, (inputs, outputs) in zip(self.parts, self.tensors, strict=True):
            values = part(*(maps[name] for name in inputs))
            maps.update(zip(outputs, values if isinstance(values, tuple) else (values,), strict=True))
        return maps["boxes"], maps["logits"]


class HuggingFaceOutputs(nn.Module):
    """Hugging Face's RTDetr with plain tensors for outputs: logits, boxes cxcywh in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Float [1, 3, H, W] in [0, 1]."""
        outputs = self.network(pixel_values=pixel_values, return_dict=True)
        return outputs.logits, outputs.pred_boxes


def export_plainly(module: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str]) -> bytes:
    """A module as one ONNX file, as PyTorch writes it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            buffer,  # type: ignore[arg-type]  # the declaration forgets file objects
            opset_version=OPSET,
            input_names=[input_name],
            output_names=list(output_names),
            dynamo=False,
        )
    return buffer.getvalue()


class PlainSession:
    """An ONNX file in ONNX Runtime with nothing set, run with arrays: what a user has after `pip install`."""

    def __init__(self, model: bytes, image: np.ndarray) -> None:
        """`image` is what the only input is given."""
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._inputs = {self._session.get_inputs()[0].name: image}

    def run(self) -> list[np.ndarray]:
        """Runs once and returns all outputs."""
        return self._session.run(None, self._inputs)


class LoneEngine:
    """A graph compiled by one of our backends, with the same options as a bundle's engines."""

    def __init__(self, backend: Backend, model: onnx.ModelProto, image: np.ndarray) -> None:
        """`image` is what the input of that shape and type is given.

        Raises:
            BackendError: the graph is not accepted.
        """
        self._backend = backend
        self._engine = backend.compile(model)
        specs = (*self._engine.inputs, *self._engine.outputs)
        self._buffers = {name: buffer for spec in specs for name, buffer in backend.allocate([Placement(spec)]).items()}
        self._engine.bind(self._buffers)
        np.copyto(self._buffers[self._engine.inputs[0].name].host, image)

    def run(self) -> list[np.ndarray]:
        """Runs once, the copies from and to a device included, and returns all outputs."""
        self._buffers[self._engine.inputs[0].name].upload()
        self._engine.run()
        outputs = [self._buffers[spec.name] for spec in self._engine.outputs]
        for output in outputs:
            output.download()
        self._backend.synchronize()
        return [output.host for output in outputs]


@dataclass(frozen=True)
class Peer:
    """Hugging Face's RT-DETR and ours of the same weights, and one image for both.

    Attributes:
        model: ONNX file of the peer.
        bundle: ours.
        image: uint8 [1, H, W, 3]; the peer reads it as float32 [1, 3, H, W] in [0, 1].
    """

    model: bytes
    bundle: Bundle
    image: np.ndarray

    @property
    def pixel_values(self) -> np.ndarray:
        """The image as the peer reads it."""
        return np.ascontiguousarray(self.image.transpose(0, 3, 1, 2), np.float32) / 255


def export_peer(size: str, side: int, folder: Path) -> Peer:
    """Exports Hugging Face's RT-DETR with random weights and, converted from it, ours, without FINE.

    Args:
        size: `r18`, `r34`, `r50` or `r101`.
        side: of the square image in pixels.
        folder: where to write the bundle.
    """
    theirs = random_rtdetr(size, _WEIGHT_SEED)
    ours = AnyDepthDetr(size, len(COCO_NAMES), fine=None).eval()
    ours.load_state_dict(from_huggingface(theirs.state_dict(), ours).state)
    image = np.random.default_rng(IMAGE_SEED).integers(0, 256, (1, side, side, 3), np.uint8)
    model = export_plainly(
        HuggingFaceOutputs(theirs), torch.zeros(1, 3, side, side), "pixel_values", ["logits", "pred_boxes"]
    )
    return Peer(model, export_bundle(ours, side, folder), image)


def random_network(name: str, side: int, folder: Path) -> Bundle:
    """The bundle of a network as it is initialised, for square images of `side` pixels, written into `folder`."""
    torch.manual_seed(_WEIGHT_SEED)
    return export_bundle(build_model(name, len(COCO_NAMES)).eval(), side, folder)


def export_bundle(model: AnyDepthDetector, side: int, folder: Path) -> Bundle:
    """Writes the bundle of a network without an accuracy table."""
    recipe = Recipe(model=model.name, image_size=(side, side))
    models, gflops = export_segments(model, recipe.image_size)
    manifest = manifest_of(model.name, model, recipe, list(COCO_NAMES), gflops, {"seed": _WEIGHT_SEED})
    return write_bundle(folder / f"{model.name}.anydepth", manifest, models)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of rows [N, D], each of `found` held to the nearest of `expected`; inf if one serves twice.

    The order of two queries whose scores differ by rounding alone is not defined.
    """
    distances = torch.cdist(torch.from_numpy(found), torch.from_numpy(expected), p=float("inf"))
    nearest = distances.min(dim=1)
    return float(nearest.values.max()) if len(nearest.indices.unique()) == len(found) else float("inf")
