"""The offline half: models, data, losses, training, evaluation and export of any-depth detectors."""
