"""Conversion of published checkpoints into our layout, and back where another library reads it."""
