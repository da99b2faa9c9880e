"""The choice of a backend by name: what stands for it, and what is refused with which words."""

from __future__ import annotations

import importlib.util
import logging

import pytest

from anydepth_perception import backends
from anydepth_perception.backends import (
    BACKENDS,
    PRECISIONS,
    BackendError,
    BackendMissingError,
    create_backend,
    preference,
)
from anydepth_perception.serving.settings import DEFAULTS, TABLE


@pytest.fixture
def no_tensorrt(monkeypatch):
    """A machine on which no TensorRT is installed."""
    found = importlib.util.find_spec
    absent = ("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))


def test_parameters_accept_what_the_backends_accept():
    assert TABLE["backend"].kind.choices == BACKENDS and TABLE["precision"].kind.choices == PRECISIONS
    assert DEFAULTS["workspace_mib"] == backends.DEFAULT_WORKSPACE_MIB


def test_only_auto_stands_for_several_backends_with_onnxruntime_as_the_last():
    assert preference("auto") == ("tensorrt", "onnxruntime")
    assert all(preference(name) == (name,) for name in BACKENDS if name != "auto")


def test_missing_tensorrt_is_an_error_that_says_what_to_do(no_tensorrt):
    with pytest.raises(BackendMissingError, match=r"not installed .*; install it, or use backend auto or onnxruntime"):
        create_backend("tensorrt")


def test_auto_takes_onnxruntime_without_a_word_where_tensorrt_is_not_installed(no_tensorrt, caplog):
    with caplog.at_level(logging.DEBUG, "anydepth_perception"):
        assert create_backend("auto").name == "onnxruntime"
    assert not caplog.records


def test_auto_says_why_an_installed_tensorrt_is_not_taken(monkeypatch, caplog):
    def unusable(*arguments):
        raise BackendError("stand-in: no GPU")

    monkeypatch.setattr(backends, "_tensorrt", unusable)
    assert create_backend("auto").name == "onnxruntime"
    assert [record.message for record in caplog.records] == ["stand-in: no GPU; onnxruntime takes its place"]


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("torch", "auto", "backend 'torch' is unknown, accepted are auto, onnxruntime"),
        ("onnxruntime", "int4", "precision 'int4' is unknown, accepted are auto, float32, float16"),
        ("onnxruntime", "float16", "backend onnxruntime computes in float32"),
        ("openvino", "float16", "backend openvino computes in float32"),
    ],
)
def test_what_no_backend_has_is_refused(name, precision, words):
    with pytest.raises(BackendError, match=words):
        create_backend(name, precision=precision)
