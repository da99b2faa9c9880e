"""Types of command-line arguments: what they accept, and how they refuse the rest."""

from __future__ import annotations

import argparse

import pytest

from anydepth_perception.tools.arguments import image_size, number, whole_number


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("2147483647", 2**31 - 1)])
def test_whole_numbers_within_the_bounds_are_read(text: str, value: int) -> None:
    assert whole_number(0, 2**31 - 1)(text) == value
    assert whole_number(0)(text) == value


@pytest.mark.parametrize("text", ["-1", "11", "1.0", "", "one", "1" * 5000])
def test_other_whole_numbers_are_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a whole number in \[0, 10\]"):
        whole_number(0, 10)(text)


def test_a_whole_number_below_the_least_is_refused_with_it() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'1' is not a whole number of at least 2"):
        whole_number(2)("1")


@pytest.mark.parametrize("text", ["0", "10.5", "nan", "inf", "fast"])
def test_a_number_out_of_range_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a number in \(0, 10\]"):
        number(0, 10, above=True)(text)


def test_the_lower_bound_is_accepted_unless_the_number_is_to_be_above_it() -> None:
    assert number(0, 10)("0") == 0.0
    assert number(0, 10, above=True)("10") == 10.0


def test_a_size_is_width_and_height() -> None:
    assert image_size("640x480") == (640, 480)


@pytest.mark.parametrize("text", ["640", "0x480", "640x32768", "640 x 480"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size like 640x480"):
        image_size(text)
