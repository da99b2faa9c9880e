"""The kinds of node parameters: each says what it accepts, reads a value, and reads the text of a launch argument."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from anydepth_perception.depth.controller import AUTO
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace
from anydepth_perception.serving.thresholds import ThresholdError, parse_thresholds

DEPTH_CHOICES = "'auto', 'full', 'base' or a depth configuration like 'FFEE.FFEE' (with '.d4' for a decoder exit)"

_TOPIC = re.compile(r"(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")

Value = bool | int | float | str | tuple[str, ...] | tuple[float, ...]
"""What a parameter can hold."""

Parsed = TypeVar("Parsed", bound=Value, covariant=True)


class RefusedValueError(ValueError):
    """A value that a parameter does not accept; the text is the value as it was given, and why where that helps."""


@dataclass(frozen=True)
class Known:
    """What the bundle at hand allows; None accepts any, while there is no bundle yet."""

    space: DepthSpace | None = None
    class_names: Sequence[str] | None = None


class Kind(Protocol[Parsed]):
    """What a parameter may hold. A new kind is a frozen dataclass with these four."""

    type_name: ClassVar[str]
    """The type's name in the documentation: bool, int, double, double list, string or string list."""

    @property
    def accepted(self) -> str:
        """What is accepted, in words for an error or a table."""

    def parse(self, value: object, known: Known) -> Parsed:
        """The value in its own type, given as ROS hands it over.

        Raises:
            RefusedValueError: the type is wrong, or the value is not accepted.
        """

    def from_text(self, text: str) -> object:
        """A text in the type of the parameter; one that does not fit stays a text, for `parse` to refuse."""


@dataclass(frozen=True)
class Flag:
    """True or false."""

    type_name: ClassVar[str] = "bool"

    @property
    def accepted(self) -> str:
        """In words."""
        return "true or false"

    def parse(self, value: object, known: Known) -> bool:
        """As it is."""
        if not isinstance(value, bool):
            raise _refusal(value)
        return value

    def from_text(self, text: str) -> object:
        """`true` and `false`, in any case of the letters."""
        return {"true": True, "false": False}.get(text.lower(), text)


@dataclass(frozen=True)
class WholeNumber:
    """A whole number between two inclusive bounds."""

    minimum: int
    maximum: int
    type_name: ClassVar[str] = "int"

    @property
    def accepted(self) -> str:
        """In words."""
        return f"a whole number in [{self.minimum:g}, {self.maximum:g}]"

    def parse(self, value: object, known: Known) -> int:
        """As it is; a float is refused even where it is whole."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.minimum <= value <= self.maximum:
            raise _refusal(value)
        return value

    def from_text(self, text: str) -> object:
        """A number written in digits."""
        try:
            return int(text)
        except ValueError:
            return text


@dataclass(frozen=True)
class Number:
    """A finite number between two inclusive bounds."""

    minimum: float
    maximum: float
    type_name: ClassVar[str] = "double"

    @property
    def accepted(self) -> str:
        """In words."""
        return f"a number in [{self.minimum:g}, {self.maximum:g}]"

    def parse(self, value: object, known: Known) -> float:
        """As a float, also where it is given as a whole number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise _refusal(value)
        if not self.minimum <= value <= self.maximum:
            raise _refusal(value)
        return float(value)

    def from_text(self, text: str) -> object:
        """A number as Python writes it."""
        try:
            return float(text)
        except ValueError:
            return text


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
            raise _refusal(value)
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
class Text:
    """Any text, or any that is more than spaces."""

    may_be_empty: bool = True
    type_name: ClassVar[str] = "string"

    @property
    def accepted(self) -> str:
        """In words."""
        return "a text" if self.may_be_empty else "a text that is not empty"

    def parse(self, value: object, known: Known) -> str:
        """As it is."""
        if not isinstance(value, str) or not (self.may_be_empty or value.strip()):
            raise _refusal(value)
        return value

    def from_text(self, text: str) -> object:
        """As it is."""
        return text


@dataclass(frozen=True)
class Choice:
    """One of several texts."""

    choices: tuple[str, ...]
    type_name: ClassVar[str] = "string"

    @property
    def accepted(self) -> str:
        """In words."""
        return ", ".join(repr(choice) for choice in self.choices)

    def parse(self, value: object, known: Known) -> str:
        """As it is."""
        if not isinstance(value, str) or value not in self.choices:
            raise _refusal(value)
        return value

    def from_text(self, text: str) -> object:
        """As it is."""
        return text


@dataclass(frozen=True)
class Depth:
    """`auto`, or a depth configuration: of the bundle where there is one, else any that is well written."""

    type_name: ClassVar[str] = "string"

    @property
    def accepted(self) -> str:
        """In words."""
        return DEPTH_CHOICES

    def parse(self, value: object, known: Known) -> str:
        """The text as it is, once a configuration can be read from it."""
        if not isinstance(value, str):
            raise _refusal(value)
        try:
            if known.space is not None and value != AUTO:
                known.space.parse(value)
            elif value not in (AUTO, "full", "base"):
                DepthConfig.parse(value)
        except DepthConfigError as error:
            raise RefusedValueError(f"{value!r}: {error}") from error
        return value

    def from_text(self, text: str) -> object:
        """As it is."""
        return text


@dataclass(frozen=True)
class DepthLimit:
    """A configuration that bounds `auto`, or an empty text."""

    type_name: ClassVar[str] = "string"

    @property
    def accepted(self) -> str:
        """In words."""
        return "empty, 'full', 'base' or a depth configuration like 'FFEE.FFEE' (with '.d4' for a decoder exit)"

    def parse(self, value: object, known: Known) -> str:
        """The text as it is, once it is empty or a configuration can be read from it."""
        if not isinstance(value, str) or value == AUTO:
            raise _refusal(value)
        return value if value == "" else Depth().parse(value, known)

    def from_text(self, text: str) -> object:
        """As it is."""
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
            raise _refusal(value)
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


def shown(value: object) -> str:
    """A value and its type, for a message."""
    return "no value" if value is None else f"{value!r} ({type(value).__name__})"


def _refusal(value: object) -> RefusedValueError:
    return RefusedValueError(shown(value))


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _refusal(value)
    return tuple(value)


def _different(value: object) -> tuple[str, ...]:
    """The texts that are not empty: `[""]` is how a parameter file writes an empty list of texts."""
    items = tuple(item for item in _texts(value) if item)
    if len(set(items)) != len(items):
        raise _refusal(value)
    return items


def _split(text: str) -> list[str]:
    return [part.strip(" '\"") for part in text.strip().strip("[]").split(",")]
