"""Serving frames of cameras by their deadline, without ROS: the model, the worker, the settings, the statistics."""
