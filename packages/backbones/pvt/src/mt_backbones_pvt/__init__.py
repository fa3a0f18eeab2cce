"""Pyramid Vision Transformer v1 and v2 with task streams."""
