"""Commands beside the node, each run with `python -m` or `ros2 run`."""
