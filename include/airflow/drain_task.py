"""What the drain needs of Airflow: its owner's name, its log, and failures that no retry can fix."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from include.errors import NonRetryableError
from include.forked import Killed
from include.kafka.position_errors import Fenced, PositionError
from include.landing import failures, handover

if TYPE_CHECKING:
    from include.landing.drain import Drained
    from include.landing.handover import Leave
    from include.streams.definition import Stream

log = logging.getLogger(__name__)


def drain_in_task(stream_name: str, share: int) -> None:
    """Drains one window of a stream inside an Airflow task; the draining may go on until the next window's has begun.

    Raises:
        AirflowFailException: A person must decide, or another drain has taken over.
    """
    from airflow.sdk import Variable, get_current_context

    from include.streams import definitions

    instance = get_current_context()["ti"]
    owner = f"{instance.dag_id} {instance.run_id} {instance.task_id}[{instance.map_index}] try {instance.try_number}"
    stream = definitions.get(stream_name)
    # A run of @continuous has no parameters; this is how to shorten its windows from outside.
    window = Variable.get(f"window__{stream_name}", default=None)
    if window is not None:
        stream = replace(stream, window=window)
    with stream_errors():
        try:
            handover.run(f"The drain of {stream_name!r}", lambda leave: _drain(stream, owner, share, leave))
        except Killed as killed:
            # What else a drain fails with it has recorded itself.
            failures.note(stream_name, failures.drain_of(share), killed)
            raise


def _drain(stream: Stream, owner: str, share: int, leave: Leave) -> None:
    import_pyarrow_without_pandas()
    from include.landing.drain import drain

    def leave_word(drained: Drained) -> None:
        _tell(drained)
        leave()

    _tell(drain(stream, owner, share, leave_word))


def _tell(drained: Drained) -> None:
    log.info(
        "%s landed, %s dead letters, %s quarantined, in %s transactions; ended because %s.",
        drained.landed,
        drained.dead_letters,
        drained.quarantined,
        drained.batches,
        drained.reason,
    )


class _NoPandas:
    """An import hook to which pandas is not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def import_pyarrow_without_pandas() -> None:
    """Keeps pyarrow from importing pandas: it does so with its first array, for conversions that no drain has use of.

    A window starts 0.3 s earlier and holds 40 MB less. For a process that does nothing else: pyarrow remembers.
    """
    hook = _NoPandas()
    sys.meta_path.insert(0, cast(Any, hook))
    try:
        import pyarrow

        pyarrow.scalar(0)
    finally:
        sys.meta_path.remove(cast(Any, hook))


@contextmanager
def stream_errors() -> Iterator[None]:
    """Turns an error that a retry cannot fix into a failure without a retry, with one sentence in the log."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except (PositionError, Fenced, NonRetryableError) as error:
        log.error("%s", error)
        raise AirflowFailException(str(error)) from error
