"""Kingpost: models and agents as autoscaled HTTP endpoints, anywhere."""

__version__ = "0.1.0"
