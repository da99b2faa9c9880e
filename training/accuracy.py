"""The accuracy table of a bundle: AP measured where it matters, and an estimate fitted to that for all the rest."""

from __future__ import annotations

import sys

from training.export.accuracy import main

if __name__ == "__main__":
    sys.exit(main())
