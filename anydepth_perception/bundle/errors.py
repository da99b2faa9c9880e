"""The one error of the bundle package."""

from __future__ import annotations


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the reason."""
