"""The one error of the bundle package."""

from __future__ import annotations

import re

_MAX_LENGTH = 1200
_LONG_WORD = re.compile(r"(\S{400})\S{50,}(\S{100})")


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the reason.

    A damaged bundle may hold names of any length and with any characters; the message stays one line that any terminal
    and any log can show.
    """

    def __init__(self, message: str) -> None:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        shown = _LONG_WORD.sub(r"\1...\2", shown)
        if len(shown) > _MAX_LENGTH:
            shown = f"{shown[: _MAX_LENGTH // 2]} ... {shown[-_MAX_LENGTH // 3 :]}"
        super().__init__(shown)
