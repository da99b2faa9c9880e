"""FINE as ONNX: every kind gives in ONNX Runtime what it gives in torch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from training.models.fine import ATTENTION_KINDS, FINE, FineSettings
from training.models.token_sampling import DOWNSAMPLE_KINDS

KINDS = [FineSettings(attention=attention) for attention in ATTENTION_KINDS]
KINDS += [FineSettings(downsample=downsample) for downsample in DOWNSAMPLE_KINDS[1:]]


@pytest.mark.parametrize("high_size", [(7, 14), (5, 9)], ids=["whole windows", "cut windows"])
@pytest.mark.parametrize("chosen", KINDS, ids=lambda chosen: f"{chosen.attention}-{chosen.downsample}")
def test_the_exported_module_agrees_with_torch(chosen: FineSettings, high_size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    fine = FINE(32, chosen, pool=2).eval()
    for parameter in fine.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    whole = high_size == (7, 14)
    low, high = torch.randn(2, 32, *(2 * side - (not whole) for side in high_size)), torch.randn(2, 32, *high_size)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(fine, (low, high), buffer, opset_version=17, input_names=["low", "high"], dynamo=False)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (refined,) = session.run(None, {"low": low.numpy(), "high": high.numpy()})
    with torch.no_grad():
        expected = fine(low, high).numpy()
    assert np.abs(refined - expected).max() < 1e-5 * np.abs(expected).max()
