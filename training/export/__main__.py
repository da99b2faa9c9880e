"""Exports a weights file to a bundle: one ONNX segment per stage and path, and the manifest."""

from __future__ import annotations

import sys

from training.export.bundle import main

if __name__ == "__main__":
    sys.exit(main())
