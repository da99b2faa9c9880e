"""What touches ROS 2: parameters, images, messages, diagnostics, quality of service."""
