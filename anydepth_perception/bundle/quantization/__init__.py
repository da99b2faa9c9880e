"""INT8 copies of bundles: ranges from calibration images, explicit QuantizeLinear and DequantizeLinear pairs."""

from anydepth_perception.bundle.quantization.calibrate import CalibrationError
from anydepth_perception.bundle.quantization.int8_copy import QuantizationSettings, quantize_bundle

__all__ = ["CalibrationError", "QuantizationSettings", "quantize_bundle"]
