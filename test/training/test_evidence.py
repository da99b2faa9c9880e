"""docs/evidence.md: its tables are those of its figures; what is missing or missed is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import evidence
from training.analysis.evidence import fill


def test_a_page_with_a_mark_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match=r"marks for \['one'\], the tables are \['one', 'two'\]"):
        fill("<!-- table: one -->\n<!-- end -->\n", {"one": "a\n", "two": "b\n"})


def test_filling_again_replaces_what_was_filled() -> None:
    page = fill("before\n<!-- table: one -->\n<!-- end -->\nafter\n", {"one": "| a |\n"})
    assert fill(page, {"one": "| b |\n"}) == "before\n<!-- table: one -->\n| b |\n<!-- end -->\nafter\n"


def test_an_unknown_measurement_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["--runs", str(tmp_path), "--docs", str(tmp_path), "--only", "speed"]) == 1
    assert "--only speed: there is none; they are study, cka, errors" in capsys.readouterr().err
