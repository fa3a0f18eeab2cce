"""Light heads over hierarchical features."""
