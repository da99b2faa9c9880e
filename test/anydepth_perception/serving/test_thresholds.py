"""Score thresholds of single classes: what a text means, and what is refused with which words."""

from __future__ import annotations

import pytest

from anydepth_perception.serving.thresholds import ThresholdError, parse_thresholds, thresholds_by_class


def test_classes_without_a_threshold_of_their_own_have_the_default():
    values = thresholds_by_class(["crate:0.7", "cone: 0"], ("person", "crate", "cone"), 0.3)
    assert values.tolist() == [0.3, 0.7, 0.0]


def test_what_follows_the_last_colon_is_the_number():
    assert parse_thresholds(["aisle:3:0.25"]) == {"aisle:3": 0.25}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["0.5"], "'0.5' has no class name"),
        ([":0.5"], "':0.5' has no class name"),
        (["person:"], "'' in 'person:' is not a number"),
        (["person:half"], "'half' in 'person:half' is not a number"),
        (["person:1.1"], r"1.1 in 'person:1.1' is not in \[0, 1\]"),
        (["person:nan"], r"nan in 'person:nan' is not in \[0, 1\]"),
        (["person:0.1", " person:0.2"], "class 'person' is there twice"),
        (["people:0.1"], "class 'people' is unknown, the bundle has person, crate"),
    ],
)
def test_bad_threshold_is_refused_with_the_reason(texts, words):
    with pytest.raises(ThresholdError, match=words):
        parse_thresholds(texts, ("person", "crate"))
