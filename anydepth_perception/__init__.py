"""The robot half of AnyDepth Perception: an any-depth detector, its depth control and its ROS 2 node."""

__version__ = "0.1.0"
