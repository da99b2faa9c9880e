"""Settings of the training tests."""

from __future__ import annotations

import torch

# Small networks gain nothing from threads, and threads that wait for each other starve on a loaded machine.
torch.set_num_threads(1)
