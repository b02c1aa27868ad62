"""The lag of streams now, asked of Kafka by one thread, so that a page never waits long for a broker that is down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from threading import Lock

from include.errors import UserError
from include.kafka.backlog import Backlog, BacklogReader, Key
from include.kafka.position_errors import OffsetsGone, PositionError
from include.pages.streams import TIMEOUT, Waiting

# Pages that are open at the same time share a measurement.
KEEP_S = 2.0
WAIT_S = 1.0

Measured = Mapping[Key, Backlog | UserError]


class LiveLag:
    """Measures the lag of all streams together, at most every ``KEEP_S`` seconds."""

    def __init__(self) -> None:
        self._reader = BacklogReader()
        self._thread = ThreadPoolExecutor(1, "millrace lag")
        self._lock = Lock()
        self._running: Future[Measured] | None = None
        self._asked: frozenset[Key] = frozenset()
        self._since = 0.0

    def of(self, streams: Mapping[str, Key]) -> dict[str, Waiting]:
        """What waits for each stream, measured within the last seconds; unknown if Kafka does not answer in time.

        Args:
            streams: The reader and the topic of each stream.
        """
        if not streams:
            return {}
        try:
            measured = self._measurement(frozenset(streams.values())).result(WAIT_S)
        except NotInTime:
            return dict.fromkeys(streams, Waiting(None, TIMEOUT))
        except UserError as error:
            return dict.fromkeys(
                streams, Waiting(None, TIMEOUT if not isinstance(error, PositionError) else str(error))
            )
        return {name: _waiting(key, measured.get(key)) for name, key in streams.items()}

    def _measurement(self, keys: frozenset[Key]) -> Future[Measured]:
        with self._lock:
            current = self._running
            if current is not None and keys <= self._asked:
                is_fresh = time.monotonic() - self._since < KEEP_S
                # One that is still running is shared however long it takes: a second would only wait behind it.
                if not current.done() or (is_fresh and current.exception() is None):
                    return current
            self._asked = keys | self._asked if current is not None and not current.done() else keys
            self._since = time.monotonic()
            self._running = self._thread.submit(self._reader.measure_all, list(self._asked))
            return self._running


def _waiting(key: Key, measured: Backlog | UserError | None) -> Waiting:
    if measured is None:
        return Waiting(None, TIMEOUT)
    if isinstance(measured, PositionError):
        return Waiting(None, str(measured))
    if isinstance(measured, UserError):
        return Waiting(None, TIMEOUT)
    for partition, offset in measured.positions.items():
        if 0 < offset < (first := measured.extents[partition].first):
            return Waiting(None, str(OffsetsGone(key[1], partition, offset, first)))
    return Waiting(measured.lag)
