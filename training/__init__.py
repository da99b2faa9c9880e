"""The offline half: models, data, losses, training, evaluation and export of any-depth detectors."""

import anydepth_perception  # switches ONNX Runtime's telemetry off before anything here imports it

__all__ = ["anydepth_perception"]
