"""The OpenVINO backend: an extra that is taken only when it is asked for, and said to be missing where it is."""

from __future__ import annotations

import sys

import pytest

from anydepth_perception.backends import BackendError, create_backend


def test_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(BackendError, match=r"backend openvino needs .*pip install openvino") as refused:
        create_backend("openvino")
    assert "\n" not in str(refused.value)


def test_auto_does_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert create_backend("auto").name == "onnxruntime"
