"""The lag of streams now, asked of Kafka by one thread, so that a page never waits long for a broker that is down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from threading import Lock
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka.position_errors import PositionError
from include.monitoring import lag
from include.monitoring.lag import Lag
from include.pages.streams import UNKNOWN, Waiting
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Pages that are open at the same time share a measurement.
KEEP_S = 2.0
WAIT_S = 1.0

Measured = Mapping[str, Lag | UserError]


class LiveLag:
    """Measures the lag of streams together, at most every ``KEEP_S`` seconds."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, "millrace lag")
        self._lock = Lock()
        self._current: Future[Measured] | None = None
        self._topics: dict[str, str] = {}
        self._since = 0.0

    def of(self, topics: Mapping[str, str]) -> dict[str, Waiting]:
        """What waits for each stream, measured within the last seconds; unknown if Kafka does not answer in time.

        Args:
            topics: The topic of each stream.
        """
        if not topics:
            return {}
        try:
            measured = self._measurement(topics).result(WAIT_S)
        except (NotInTime, UserError):
            return dict.fromkeys(topics, UNKNOWN)
        return {name: _waiting(measured.get(name)) for name in topics}

    def _measurement(self, topics: Mapping[str, str]) -> Future[Measured]:
        with self._lock:
            current = self._current
            if current is not None and topics.items() <= self._topics.items():
                # One that still runs is shared however long it takes: another would only wait behind it.
                if not current.done():
                    return current
                if time.monotonic() - self._since < KEEP_S and current.exception() is None:
                    return current
            self._topics = dict(topics)
            self._since = time.monotonic()
            self._current = self._thread.submit(self._measure, self._topics)
            return self._current

    def _measure(self, topics: Mapping[str, str]) -> Measured:
        try:
            if self._connection is None:
                self._connection = connect("millrace lag")
            return lag.measure(self._connection, topics)
        except Exception as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if isinstance(error, UserError):
                raise
            # A connection that broke while it was idle.
            return {}


def _waiting(measured: Lag | UserError | None) -> Waiting:
    if isinstance(measured, Lag):
        return Waiting(measured.records, measured.seconds)
    if isinstance(measured, PositionError):
        return Waiting(None, None, str(measured), is_stopped=True)
    return UNKNOWN
