"""Prefetching: runs an iterator in a thread, some items before they are needed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Runs an iterator in a thread of its own, at most ``depth`` items ahead.

    The iterator must yield, or check ``stopping``, often: closing waits for it.

    Args:
        items: The iterator; it ends, and cleans up, in the thread.
        stopping: Set on exit, when no more items are wanted.
    """

    def __init__(self, items: Iterator[T], stopping: threading.Event, depth: int = 1) -> None:
        self._items = items
        self._stopping = stopping
        self._ready: queue.Queue[T | BaseException] = queue.Queue(depth)
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def get(self, timeout_s: float) -> T | None:
        """The next item, or None if none is ready in time. Raises the iterator's exception."""
        try:
            item = self._ready.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                # An item may be large, and the next one takes a while.
                del item
        except BaseException as error:  # get() raises it
            self._put(error)

    def _put(self, item: T | BaseException) -> None:
        while not self._stopping.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
