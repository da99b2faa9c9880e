"""The kinds of node parameters: each says what it accepts, reads a value, and reads the text of a launch argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from anydepth_perception.depth.controller import AUTO
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace

DEPTH_CHOICES = "'auto', 'full', 'base' or a depth configuration like 'FFEE.FFEE' (with '.d4' for a decoder exit)"

Value = bool | int | float | str | tuple[str, ...] | tuple[float, ...]
"""What a parameter can hold."""

Parsed = TypeVar("Parsed", bound=Value, covariant=True)


_SHOWN = 400
"""Characters of a refused value that a message repeats."""


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
            raise refusal(value)
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
            raise refusal(value)
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
            raise refusal(value)
        if not self.minimum <= value <= self.maximum:
            raise refusal(value)
        return float(value)

    def from_text(self, text: str) -> object:
        """A number as Python writes it."""
        try:
            return float(text)
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
            raise refusal(value)
        return value

    def from_text(self, text: str) -> object:
        """As it is."""
        return text


@dataclass(frozen=True)
class Choice:
    """One of several texts; `hint` tells what helps whoever asks for another one."""

    choices: tuple[str, ...]
    hint: str = ""
    type_name: ClassVar[str] = "string"

    @property
    def accepted(self) -> str:
        """In words."""
        return ", ".join(repr(choice) for choice in self.choices)

    def parse(self, value: object, known: Known) -> str:
        """As it is."""
        if not isinstance(value, str) or value not in self.choices:
            raise RefusedValueError(f"{shown(value)}; {self.hint}" if self.hint else shown(value))
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
            raise refusal(value)
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
            raise refusal(value)
        return value if value == "" else Depth().parse(value, known)

    def from_text(self, text: str) -> object:
        """As it is."""
        return text


def shown(value: object) -> str:
    """A value and its type, for a message; a long one is cut."""
    text = repr(value)
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    return "no value" if value is None else f"{text} ({type(value).__name__})"


def refusal(value: object) -> RefusedValueError:
    """The error for a value that is refused without a further reason."""
    return RefusedValueError(shown(value))
