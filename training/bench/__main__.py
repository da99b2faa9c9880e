"""The benchmark: staged, whole and monolithic, every backend and rung, memory, INT8, and Hugging Face's RT-DETR."""

from __future__ import annotations

import sys

from training.bench.run import main

if __name__ == "__main__":
    sys.exit(main())
