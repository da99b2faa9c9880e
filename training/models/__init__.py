"""Any-depth detectors: stages with an essential and a full path, assembled into networks."""
