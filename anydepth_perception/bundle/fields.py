"""Typed access to the fields of a JSON object, with errors that name the file and the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from anydepth_perception.bundle.errors import BundleError


class Fields:
    """One JSON object of a file, read key by key; every failure is a BundleError naming file, place and key."""

    def __init__(self, values: object, file: str, place: str, *, is_root: bool = False) -> None:
        """`place` is where the object stands in `file`, as in `segments.p2.full`; of the root it is a name for it."""
        self._file = file
        self._place = place
        self._is_root = is_root
        if not isinstance(values, Mapping):
            raise self.error(f"is a {type(values).__name__}, expected an object")
        self.values: Mapping[str, Any] = values

    def error(self, reason: str) -> BundleError:
        """An error about this object, to be raised by the caller."""
        return BundleError(f"{self._file}: {self._place} {reason}")

    def names(self) -> list[str]:
        """Keys of this object, in the file's order."""
        return list(self.values)

    def fields(self, key: str) -> Fields:
        """The object under `key`."""
        place = key if self._is_root else f"{self._place}.{key}"
        return Fields(self._value(key), self._file, place)

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        """The text under `key`."""
        value = self._value(key)
        if not isinstance(value, str) or not (value or may_be_empty) or "\0" in value:
            raise self._bad(key, "a text" if may_be_empty else "a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under `key`, not empty."""
        value = self._value(key)
        if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
            raise self._bad(key, "a list of texts, none empty")
        return tuple(value)

    def choice(self, key: str, accepted: Iterable[str]) -> str:
        """The text under `key`, one of `accepted`."""
        value = self._value(key)
        accepted = tuple(accepted)
        if value not in accepted:
            raise self._bad(key, f"one of {', '.join(accepted)}")
        return str(value)

    def boolean(self, key: str) -> bool:
        """The truth value under `key`."""
        value = self._value(key)
        if not isinstance(value, bool):
            raise self._bad(key, "true or false")
        return value

    def integer(self, key: str, minimum: int, maximum: int | None = None) -> int:
        """The whole number under `key`, in [minimum, maximum]."""
        value = self._value(key)
        if not _is_integer(value, minimum, maximum):
            upper = "" if maximum is None else f" and at most {maximum}"
            raise self._bad(key, f"a whole number of at least {minimum}{upper}")
        return int(value)

    def integers(self, key: str, minimum: int) -> tuple[int, ...]:
        """The list of whole numbers under `key`, each at least `minimum`."""
        value = self._value(key)
        if not isinstance(value, list) or not all(_is_integer(item, minimum, None) for item in value):
            raise self._bad(key, f"a list of whole numbers of at least {minimum}")
        return tuple(value)

    def number(self, key: str, minimum: float, maximum: float) -> float:
        """The number under `key`, finite and in [minimum, maximum]."""
        value = self._value(key)
        if not _is_number(value, minimum, maximum):
            raise self._bad(key, f"a number from {minimum} to {maximum}")
        return float(value)

    def numbers(self, key: str, minimum: float, maximum: float) -> tuple[float, ...]:
        """The list of numbers under `key`, each finite and in [minimum, maximum]."""
        value = self._value(key)
        if not isinstance(value, list) or not all(_is_number(item, minimum, maximum) for item in value):
            raise self._bad(key, f"a list of numbers from {minimum} to {maximum}")
        return tuple(float(item) for item in value)

    def optional_number(self, key: str, minimum: float, maximum: float) -> float | None:
        """As `number`; None where the file holds null."""
        return None if self._value(key) is None else self.number(key, minimum, maximum)

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(f"lacks the key {key!r}")
        return self.values[key]

    def _bad(self, key: str, expected: str) -> BundleError:
        shown = repr(self.values[key])
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return self.error(f"key {key!r} is {shown}, expected {expected}")


def relative_file(text: str, fields: Fields) -> str:
    """Returns `text` if it names a file inside the bundle, else raises an error about `fields`.

    The check is on the text alone: a symbolic link is not followed, because `colcon build --symlink-install`
    links every file of a bundle to its place in the sources.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or "\\" in text or ":" in text or ".." in path.parts or not path.name or "\0" in text:
        raise fields.error(f"names the file {text!r}, which is not a plain path inside the bundle")
    return text


def _is_number(value: object, minimum: float, maximum: float) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return minimum <= value <= maximum  # NaN fails the comparison


def _is_integer(value: object, minimum: int, maximum: int | None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value >= minimum and (maximum is None or value <= maximum)
