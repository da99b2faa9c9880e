"""Benchmarks, of the run time, of the networks, of a training step, and what TensorRT makes of the graphs."""
