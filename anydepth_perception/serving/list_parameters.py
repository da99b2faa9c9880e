"""The kinds of node parameters that are lists: numbers, regions, topics, entries, thresholds, classes, masks."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import ClassVar

from anydepth_perception.detection.regions import LEAST_SPAN, MaskError, read_mask
from anydepth_perception.serving.parameters import Known, Number, RefusedValueError, refusal, shown
from anydepth_perception.serving.thresholds import ThresholdError, parse_thresholds

NO_MASK = "none"
"""Stands for no mask in the parameter `mask`."""

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
class Regions:
    """Regions of images, four fractions each: left, top, right, bottom."""

    type_name: ClassVar[str] = "double list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "left, top, right, bottom in [0, 1], once or for each camera, right and bottom the larger; or empty"

    def parse(self, value: object, known: Known) -> tuple[float, ...]:
        """As floats in their order; `[""]` is how a parameter file writes an empty list."""
        numbers = Numbers(0.0, 1.0).parse(value, known)
        if len(numbers) % 4:
            raise refusal(value)
        for left, top, right, bottom in zip(*(numbers[side::4] for side in range(4)), strict=True):
            if right - left < LEAST_SPAN or bottom - top < LEAST_SPAN:
                raise RefusedValueError(f"{shown(value)}, in which a region spans less than {LEAST_SPAN:g}")
        return numbers

    def from_text(self, text: str) -> object:
        """Numbers between commas, with or without brackets."""
        return Numbers(0.0, 1.0).from_text(text)


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
class Classes:
    """Names of classes, each only once: of the bundle where there is one."""

    type_name: ClassVar[str] = "string list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a list of different class names, or an empty one"

    def parse(self, value: object, known: Known) -> tuple[str, ...]:
        """The names in their order."""
        names = _different(value)
        unknown = [name for name in names if known.class_names is not None and name not in known.class_names]
        if unknown:
            known_names = ", ".join(known.class_names or ())
            raise RefusedValueError(f"{shown(value)}: class {unknown[0]!r} is unknown, the bundle has {known_names}")
        return names

    def from_text(self, text: str) -> object:
        """Names between commas, with or without brackets."""
        return _split(text)


@dataclass(frozen=True)
class Masks:
    """Paths of PNG files, each of which is read to see that it can be; `none` where there is no mask."""

    type_name: ClassVar[str] = "string list"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a list of PNG files (or 'none'), one or one for each camera, or an empty one"

    def parse(self, value: object, known: Known) -> tuple[str, ...]:
        """The paths in their order."""
        paths = tuple(path for path in _texts(value) if path)
        for path in paths:
            if path != NO_MASK:
                try:
                    read_mask(path)
                except MaskError as error:
                    raise RefusedValueError(f"{shown(value)}: {error}") from error
        return paths

    def from_text(self, text: str) -> object:
        """Paths between commas, with or without brackets."""
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
