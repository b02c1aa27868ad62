"""The run log: writes what a task logs to PostgreSQL while it happens. An error of the log never fails a fit."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

FLUSH_EVERY_S = 0.5
CLOSE_WITHIN_S = 3.0
MAX_WAITING = 10_000
_LIBRARIES = ("airflow", "alembic", "sqlalchemy", "httpx", "httpcore")

log = logging.getLogger(__name__)


@contextmanager
def logging_to_run(run: int, model: str | None = None, idle: Callable[[], Connection] | None = None) -> Iterator[None]:
    """Writes log records and warnings of the ``with`` block to ``millrace.run_log``.

    Args:
        idle: Returns a connection that is unused at the end of the block. A block that ends before the first lines are
            written uses it, and opens no connection for the log.
    """
    handler = _Handler(run, model)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    except Exception as error:
        # The message of a KeyError is only the key.
        log.error("%s", error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.finish(idle)


class _Handler(logging.Handler):
    def __init__(self, run: int, model: str | None) -> None:
        super().__init__(logging.INFO)
        self._run, self._model = run, model
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING)
        self._connection: Connection | None = None
        self._idle: Callable[[], Connection] | None = None
        self._ended = threading.Event()
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="run log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _LIBRARIES:
            return
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def finish(self, idle: Callable[[], Connection] | None) -> None:
        """Writes the remaining lines; gives up when PostgreSQL does not answer in time."""
        self._idle = idle
        self._ended.set()
        self._writer.join(CLOSE_WITHIN_S)
        if self._lost or self._writer.is_alive():
            log.warning("Some lines of this log could not be written to PostgreSQL.")

    def _write(self) -> None:
        while not (self._ended.wait(FLUSH_EVERY_S) and self._lines.empty()):
            self._flush()
        if self._connection is not None:
            self._connection.close()

    def _flush(self) -> None:
        records = []
        with suppress(queue.Empty):
            while True:
                records.append(self._lines.get_nowait())
        if not records:
            return
        try:
            self._store(records)
        except Exception:
            self._connection = None
            self._lost += len(records)
            time.sleep(FLUSH_EVERY_S)

    def _usable(self) -> Connection:
        from include.warehouse.connection import connect

        if self._connection is None and self._idle is not None:
            with suppress(Exception):
                connection = self._idle()
                connection.rollback()
                return connection
        self._connection = self._connection or connect("millrace run log")
        return self._connection

    def _store(self, records: list[logging.LogRecord]) -> None:
        from include.warehouse import queries

        connection = self._usable()
        queries.load("training").log_lines(
            connection,
            run=self._run,
            model=self._model,
            ats=[record.created for record in records],
            levels=[record.levelname for record in records],
            loggers=[record.name for record in records],
            messages=[record.getMessage().replace("\0", "") for record in records],
        )
        connection.commit()
