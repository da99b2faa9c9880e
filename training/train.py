"""Trains an any-depth detector: super-net and base-net in two passes over every batch."""

from __future__ import annotations

import sys

from training.loop.trainer import main

if __name__ == "__main__":
    sys.exit(main())
