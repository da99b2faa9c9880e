"""Reference outputs of a bundle, which engines are held against when they are built: those of the network in torch."""

from __future__ import annotations

import numpy as np
import torch

from anydepth_perception.bundle import Bundle, Reference, ReferenceRows, choose_rows, rewrite_bundle
from anydepth_perception.bundle.plain_run import reference_configs
from anydepth_perception.depth.space import DepthConfig
from anydepth_perception.detection.preprocess import Preprocessor
from training.data.aisle import render_image
from training.models.detector import AnyDepthDetector


def write_references(bundle: Bundle, model: AnyDepthDetector) -> Bundle:
    """Computes the references of `bundle` with `model`, whose export it is, and stores them.

    The accuracy table has to be there before: which configurations make up the default ladder depends on it.

    Raises:
        BundleError: the references do not fit the bundle.
    """
    return rewrite_bundle(bundle, reference=reference_in_torch(model, bundle, reference_image(bundle)))


def reference_in_torch(model: AnyDepthDetector, bundle: Bundle, image: np.ndarray) -> Reference:
    """References of `reference_configs`, computed by torch: what no inference engine has a part in.

    `image` is uint8 [1, H, W, 3] at network size.
    """
    height, width = image.shape[1:3]
    scale = torch.tensor([width, height, width, height])
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    rows: dict[DepthConfig, ReferenceRows] = {}
    for config in reference_configs(bundle):
        with torch.no_grad():
            outputs = model.eval()(pixels, model.space.executed(config))
        rows[config] = choose_rows((outputs["boxes"] / scale).numpy(), outputs["logits"].numpy())
    return Reference(image, rows)


def reference_image(bundle: Bundle) -> np.ndarray:
    """An aisle scene fitted to the input of `bundle`, uint8 [1, H, W, 3]: things to detect, and texture."""
    source = bundle.manifest.input
    fit = Preprocessor(source.height, source.width, resize=source.resize, pad_value=source.pad_value)
    fit(render_image("val", 0, (640, 480)).image)
    return fit.buffer.copy()
