"""Durations are the same in datasets and streams."""

from include.durations import duration

__all__ = ["duration"]
