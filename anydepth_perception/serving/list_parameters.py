"""The kinds of node parameters that are lists: numbers, topics, entries of a pipeline, thresholds."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import ClassVar

from anydepth_perception.serving.parameters import Known, Number, RefusedValueError, refusal, shown
from anydepth_perception.serving.thresholds import ThresholdError, parse_thresholds

_TOPIC = re.compile(r"(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Numbers:
    """Finite numbers between two inclusive bounds, any number of them."""

    minimum: float
    maximum: float
    type_name: ClassVar[str] = "double list"

    @property
    def accepted(self) -> str:
        """In words."""
        return f"a list of numbers in [{self.minimum:g}, {self.maximum:g}], or an empty one"

    def parse(self, value: object, known: Known) -> tuple[float, ...]:
        """As floats in their order; `[""]` is how a parameter file writes an empty list."""
        if not isinstance(value, (list, tuple, array)):
            raise refusal(value)
        if list(value) == [""]:
            return ()
        one = Number(self.minimum, self.maximum)
        try:
            return tuple(one.parse(item, known) for item in value)
        except RefusedValueError as error:
            raise RefusedValueError(f"{shown(value)}, with {error}") from error

    def from_text(self, text: str) -> object:
        """Numbers between commas, with or without brackets."""
        try:
            return [float(part) for part in _split(text)]
        except ValueError:
            return text


@dataclass(frozen=True)
class Topics:
    """Names of topics, at least one and each only once."""

    type_name: ClassVar[str] = "string list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a list of different topic names, at least one"

    def parse(self, value: object, known: Known) -> tuple[str, ...]:
        """The names in their order."""
        topics = _texts(value)
        if not topics or not all(_TOPIC.fullmatch(topic) for topic in topics) or len(set(topics)) != len(topics):
            raise refusal(value)
        return topics

    def from_text(self, text: str) -> object:
        """Names between commas, with or without brackets."""
        return _split(text)


@dataclass(frozen=True)
class Entries:
    """Names of entries of the bundle's pipeline, each only once; which there are, the bundle says when it is loaded."""

    type_name: ClassVar[str] = "string list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a list of different pipeline entries, as 'p5'"

    def parse(self, value: object, known: Known) -> tuple[str, ...]:
        """The names in their order."""
        return _different(value)

    def from_text(self, text: str) -> object:
        """Names between commas, with or without brackets."""
        return _split(text)


@dataclass(frozen=True)
class Thresholds:
    """Score thresholds of single classes, as `person:0.5`."""

    type_name: ClassVar[str] = "string list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a list of texts CLASS:SCORE, one per class, with a score in [0, 1]"

    def parse(self, value: object, known: Known) -> tuple[str, ...]:
        """The texts in their order, once thresholds can be read from them."""
        texts = _different(value)
        try:
            parse_thresholds(texts, known.class_names)
        except ThresholdError as error:
            raise RefusedValueError(f"{shown(value)}: {error}") from error
        return texts

    def from_text(self, text: str) -> object:
        """Texts between commas, with or without brackets."""
        return _split(text)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise refusal(value)
    return tuple(value)


def _different(value: object) -> tuple[str, ...]:
    """The texts that are not empty: `[""]` is how a parameter file writes an empty list of texts."""
    items = tuple(item for item in _texts(value) if item)
    if len(set(items)) != len(items):
        raise refusal(value)
    return items


def _split(text: str) -> list[str]:
    return [part.strip(" '\"") for part in text.strip().strip("[]").split(",")]
