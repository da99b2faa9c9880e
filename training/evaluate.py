"""COCO metrics of a bundle, or of a network in PyTorch, at one, several or all depth configurations."""

from __future__ import annotations

import sys

from training.evaluation.results import main

if __name__ == "__main__":
    sys.exit(main())
