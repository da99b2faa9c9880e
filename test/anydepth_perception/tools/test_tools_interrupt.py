"""A tool that is interrupted ends quietly."""

from __future__ import annotations

import pytest

from anydepth_perception.tools.interrupt import INTERRUPTED, interruptible


def test_interrupted_tool_ends_with_a_word_and_the_code_of_sigint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, interruptible():
        raise KeyboardInterrupt
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="wrong"), interruptible():
        raise ValueError("wrong")
