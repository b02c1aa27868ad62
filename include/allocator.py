"""The C library's allocator."""

from __future__ import annotations

import ctypes
from functools import cache

# The numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 128 * 1024 * 1024
APART_BYTES = 32 * 1024 * 1024
"""What is larger is still taken from the kernel alone, and goes back to it at once: the greatest that glibc has."""


@cache
def keep_freed() -> None:
    """Lets this process use again what it frees; for work in which thousands of messages come and go.

    glibc takes a megabyte from the kernel and gives it back with each message, and the kernel makes every page of
    it again, which takes as long as filling it. Does nothing with another C library.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_THRESHOLD, APART_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
