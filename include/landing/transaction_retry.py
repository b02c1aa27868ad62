"""The retry policy of landing: which errors are tried again, how often and after how long. Drain and replay use it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from include.errors import NonRetryableError, UserError
from include.kafka.position_errors import Fenced, PositionError
from include.landing import database_errors

if TYPE_CHECKING:
    from include.landing.partitions import Partitions

T = TypeVar("T")
log = logging.getLogger(__name__)

# A cut connection can usually be opened again at once, so the first wait is short; each wait doubles up to the longest.
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 1.0


def is_transient(error: BaseException) -> bool:
    """Whether waiting may help: Kafka or PostgreSQL is down, a disk is full, a lock is held."""
    import psycopg2

    if isinstance(error, psycopg2.Error):
        return database_errors.is_transient(error)
    return isinstance(error, UserError) and not isinstance(error, PositionError | Fenced | NonRetryableError)


def until(deadline: float, work: Callable[[], T]) -> T:
    """Does the work; after a transient error, tries again once a second until ``deadline`` of the monotonic clock."""
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_fixed

    def warn(state: RetryCallState) -> None:
        if state.outcome is not None and (error := state.outcome.exception()) is not None:
            log.warning("Trying again: %s", _text(error))

    return Retrying(
        retry=retry_if_exception(is_transient),
        stop=lambda _: time.monotonic() > deadline,
        wait=wait_fixed(MAX_WAIT_S),
        before_sleep=warn,
        reraise=True,
    )(work)


class TransactionRetry:
    """The retries of one landing transaction.

    - A row for which there is no partition: retention has dropped one that was known. Read the partitions again, once.
    - A row that PostgreSQL refuses: find all such rows first, once. They become dead letters.
    - A transient error: wait, then try again, until the deadline.
    - Any other error: raise it, as a ``NonRetryableError`` where PostgreSQL's reason is known to be permanent.

    Args:
        partitions: What is known of the table's partitions.
        deadline: Until when transient errors are tried again, by the monotonic clock; None for never.
    """

    def __init__(self, partitions: Partitions, deadline: float | None = None) -> None:
        self._partitions, self._deadline = partitions, deadline
        self._find_refused = self._partitions_read_again = False
        self._wait_s = FIRST_WAIT_S

    def run(self, attempt: Callable[[bool], T], undo: Callable[[], None]) -> T:
        """Returns the result of the first attempt that succeeds.

        Args:
            attempt: The transaction. Its argument says whether to find the rows that PostgreSQL refuses first.
            undo: Called after an attempt that failed: rolls the transaction back.
        """
        while True:
            try:
                return attempt(self._find_refused)
            except BaseException as error:
                undo()
                if not self._prepare_retry(error):
                    if (explained := database_errors.explained(error)) is not None:
                        raise explained from error
                    raise

    def _prepare_retry(self, error: BaseException) -> bool:
        """Whether to try again; waits before, if that is needed."""
        if database_errors.is_of_partition(error) and not self._partitions_read_again:
            self._partitions.forget()
            self._partitions_read_again = True
        elif database_errors.is_of_rows(error) and not self._find_refused:
            self._find_refused = True
        elif is_transient(error) and self._deadline is not None and time.monotonic() < self._deadline:
            log.warning("Trying again: %s", _text(error))
            time.sleep(self._wait_s)
            self._wait_s = min(2 * self._wait_s, MAX_WAIT_S)
        else:
            return False
        return True


def _text(error: BaseException) -> str:
    return error.what if isinstance(error, UserError) else str(error).strip()
