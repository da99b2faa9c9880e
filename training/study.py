"""Trains the variants of a study, seed by seed, evaluates them on one split, and tabulates them."""

from __future__ import annotations

import sys

from training.analysis.study import main

if __name__ == "__main__":
    sys.exit(main())
