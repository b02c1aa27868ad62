"""Settings of glibc's memory allocator for publishing and reading versions."""

from __future__ import annotations

import ctypes
from functools import cache

# Constants of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 128 * 1024 * 1024
APART_BYTES = 32 * 1024 * 1024
"""Larger blocks are mapped individually and returned to the kernel when freed; the largest value that glibc accepts."""


@cache
def keep_freed() -> None:
    """Lets this process reuse the memory that it frees, for work that allocates and frees thousands of messages.

    By default glibc maps about a megabyte for each message and returns it to the kernel, which has to clear every page
    again. That takes as long as filling the pages. Does nothing with another C library. To see the gain, compare
    ``./millrace bench publish`` and ``./millrace bench read`` with and without this call.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_THRESHOLD, APART_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
