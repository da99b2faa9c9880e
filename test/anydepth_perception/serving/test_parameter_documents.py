"""The parameter file and the documentation are printed from the table; they must not be behind it."""

from __future__ import annotations

from pathlib import Path

import yaml

from anydepth_perception.serving.parameter_documents import to_markdown, to_yaml
from anydepth_perception.serving.parameters import Number, WholeNumber
from anydepth_perception.serving.settings import DEFAULTS, TABLE, Settings

ROOT = Path(__file__).resolve().parents[3]


def test_the_documentation_holds_the_table_as_it_is_now():
    assert to_markdown() in (ROOT / "docs" / "node.md").read_text(), (
        "print it again: python -m anydepth_perception.serving.parameter_documents --markdown"
    )


def test_the_parameter_file_is_the_table_as_it_is_now():
    assert (ROOT / "config" / "detector.yaml").read_text() == to_yaml(), (
        "print it again: python -m anydepth_perception.serving.parameter_documents --yaml > config/detector.yaml"
    )


def test_the_parameter_file_holds_every_default():
    values = yaml.safe_load(to_yaml())["/**"]["ros__parameters"]
    assert Settings.from_values(values) == Settings() and set(values) == set(DEFAULTS)


def test_every_parameter_is_described_and_every_number_has_a_range():
    for name, info in TABLE.items():
        assert info.description.endswith("."), name
        if isinstance(DEFAULTS[name], (int, float)) and not isinstance(DEFAULTS[name], bool):
            assert isinstance(info.kind, (Number, WholeNumber)) and info.kind.minimum < info.kind.maximum, name
