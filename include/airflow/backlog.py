"""The sensor that waits until a topic holds records past a reader's position.

It measures the backlog once in the worker and then waits in the triggerer. Waiting takes no worker slot, joins no
consumer group, and does not block the triggerer's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from include.errors import UserError
from include.kafka.backlog import BacklogReader, SharedBacklogReader
from include.kafka.position_errors import PositionError

if TYPE_CHECKING:
    from airflow.sdk import Context

# If a trigger fires before the scheduler has recorded the deferral, the task fails (apache/airflow#71580 and #72716).
# So no event is sent earlier than this after the start.
MIN_WAIT_S = 1.5
# A broker that has just started may report a topic as missing.
MAX_POSITION_ERRORS = 2


class BacklogTrigger(BaseTrigger):
    """Fires once the backlog is not empty, or after ``at_most_s`` seconds.

    Errors of the brokers or the database are logged, and the trigger keeps waiting. A position error that occurs twice
    in a row ends the wait: the next task meets the same error and fails with it.

    Args:
        reader: Whose position counts.
        topic: The topic to watch.
        poll_s: Seconds between two measurements.
        at_most_s: Seconds after which it fires in any case, so that every run of the DAG ends.
    """

    def __init__(self, reader: str, topic: str, poll_s: float, at_most_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reader, self.topic, self.poll_s, self.at_most_s = reader, topic, poll_s, at_most_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow stores the trigger."""
        return (
            "include.airflow.backlog.BacklogTrigger",
            {"reader": self.reader, "topic": self.topic, "poll_s": self.poll_s, "at_most_s": self.at_most_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measures every ``poll_s`` seconds, together with the other triggers."""
        started = time.monotonic()
        with SharedBacklogReader.shared() as backlogs:
            lag = position_errors = 0
            while lag == 0 and position_errors < MAX_POSITION_ERRORS and time.monotonic() - started < self.at_most_s:
                await asyncio.sleep(self._until_next())
                try:
                    lag = (await backlogs.backlog(self.reader, self.topic)).lag
                    position_errors = 0
                except Exception as error:
                    position_errors = position_errors + 1 if isinstance(error, PositionError) else 0
                    self.log.warning("Still waiting for topic %s: %s", self.topic, error)
                    await asyncio.sleep(min(5.0, 10 * self.poll_s))
            await asyncio.sleep(max(0.0, MIN_WAIT_S - (time.monotonic() - started)))
            # Ends the task in the triggerer: returning to a worker only to succeed would take most of a second.
            yield TaskSuccessEvent()

    def _until_next(self) -> float:
        """Seconds until the next measurement; all triggers measure at the same moments."""
        return self.poll_s - time.monotonic() % self.poll_s if self.poll_s else 0.0


class BacklogSensor(BaseSensorOperator):
    """Succeeds as soon as a topic holds records past the reader's stored position, or after ``at_most``.

    Args:
        reader: Whose position counts.
        kafka_topic: The topic to watch.
        poll: Time between two measurements while it waits.
        at_most: Time after which it succeeds in any case; the next task then finds nothing to do.
    """

    template_fields = ("reader", "kafka_topic")

    def __init__(
        self,
        *,
        reader: str,
        kafka_topic: str,
        poll: timedelta = timedelta(seconds=0.5),
        at_most: timedelta = timedelta(hours=12),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reader, self.kafka_topic, self.poll, self.at_most = reader, kafka_topic, poll, at_most

    def execute(self, context: Context) -> int:
        """Measures once, then defers. Returns the lag in offsets.

        It also defers when Kafka or PostgreSQL does not answer: the trigger waits for them without a worker.
        """
        backlogs = BacklogReader()
        lag = 0
        try:
            lag = backlogs.measure(self.reader, self.kafka_topic).lag
        except PositionError:
            raise
        except UserError as error:
            self.log.warning("%s", error)
        finally:
            backlogs.close()
        if lag == 0:
            self.defer(
                trigger=BacklogTrigger(
                    self.reader, self.kafka_topic, self.poll.total_seconds(), self.at_most.total_seconds()
                ),
                # Never called: the trigger ends the task.
                method_name="execute",
            )
        return lag
