"""Dyna-style model-based RL that says when, where and why synthetic data helps or hurts."""

__version__ = "0.1.0"
