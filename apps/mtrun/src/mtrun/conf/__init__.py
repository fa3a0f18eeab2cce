"""Configurations that are shipped: the experiments."""
