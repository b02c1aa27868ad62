"""Sizes of memory as definitions write them: ``500 MB``, ``4 GB``, ``2 GiB``."""

from __future__ import annotations

import re

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(MB|GB|MiB|GiB)")


def size(text: str) -> int:
    """Parses a size; returns bytes.

    Raises:
        ValueError: The text is not a size, or the size is 0.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is not a size")
    return int(float(match[1]) * _UNITS[match[2]])
