"""INT8 copies of bundles: ranges from calibration images, explicit QuantizeLinear and DequantizeLinear pairs."""

from anydepth_perception.bundle.quantization.calibrate import CalibrationError
from anydepth_perception.bundle.quantization.int8_copy import QuantizationSettings, quantize_bundle
from anydepth_perception.tools.calibration_images import read_folder

__all__ = ["CalibrationError", "QuantizationSettings", "quantize_bundle", "read_folder"]
