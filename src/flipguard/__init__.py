"""Align language models without breaking what already worked, and prove it."""

__version__ = "0.1.0"
