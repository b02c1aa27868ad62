"""Sizes of memory as people write them: ``500 MB``, ``4 GB``, ``2 GiB``."""

from __future__ import annotations

import re

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(MB|GB|MiB|GiB)")


def size(text: str) -> int:
    """The bytes that ``text`` names.

    Raises:
        ValueError: It names none.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no size")
    return int(float(match[1]) * _UNITS[match[2]])
