"""The prefetcher: an iterator that runs in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from include.landing.prefetch import Prefetcher


def test_items_keep_their_order() -> None:
    with Prefetcher(iter(range(100)), threading.Event()) as ready:
        assert [ready.get(5) for _ in range(100)] == list(range(100))
        assert ready.get(0.05) is None


def test_it_prefetches_no_more_than_its_depth() -> None:
    produced: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            produced.append(number)
            yield number

    with Prefetcher(items(), threading.Event(), depth=2) as ready:
        time.sleep(0.3)
        assert len(produced) <= 4
        assert ready.get(5) == 0


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    with Prefetcher(items(), threading.Event()) as ready:
        assert ready.get(5) == 1
        with pytest.raises(KeyError, match="gone"):
            ready.get(5)


def test_closing_ends_the_iterator_in_its_thread() -> None:
    stopping, cleaned = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            while not stopping.is_set():
                yield 1
        finally:
            cleaned.set()

    with Prefetcher(items(), stopping) as ready:
        ready.get(5)
    assert cleaned.wait(5)
