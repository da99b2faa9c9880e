"""Depth: what a configuration is, what it costs, and which one meets a deadline."""
