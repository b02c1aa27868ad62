"""MemoryMonitor: how much memory a process and its children use."""

from __future__ import annotations

import time

import psutil

CHILDREN_EVERY_S = 1.0


class MemoryMonitor:
    """The memory of a process and its children.

    Attributes:
        peak: The most that ``read`` has returned, in bytes.
    """

    def __init__(self, process: int) -> None:
        self._process = psutil.Process(process)
        self._children: list[psutil.Process] = []
        self._counted_at = 0.0
        self.peak = 0

    def read(self) -> int:
        """The memory used now, in bytes; 0 once the process has ended."""
        try:
            # Finding children reads every process of the machine.
            if time.monotonic() - self._counted_at > CHILDREN_EVERY_S:
                self._children = self._process.children(recursive=True)
                self._counted_at = time.monotonic()
            used = sum(process.memory_info().rss for process in (self._process, *self._children))
        except psutil.Error:
            self._counted_at = 0.0
            return 0
        self.peak = max(self.peak, used)
        return int(used)
