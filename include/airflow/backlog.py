"""The sensor that waits until a topic holds records past a reader's position.

It looks once in the worker and then waits in the triggerer: no worker slot is held, no consumer group joined, and the
triggerer's event loop is not blocked.
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
from include.kafka.backlog import BacklogReader, Watch
from include.kafka.position_errors import PositionError

if TYPE_CHECKING:
    from airflow.sdk import Context

# A trigger that fires at once races with the scheduler's own record of the deferral, and the task fails
# (apache/airflow#71580 and #72716): holding the first event back for a moment avoids it.
HOLD_FIRE_S = 1.5
# A broker that has just started may not know its topics for a moment.
ERRORS_SEEN = 2


class BacklogTrigger(BaseTrigger):
    """Fires once the backlog is not empty, or after ``at_most_s`` seconds without any.

    Errors of the brokers or the database do not end the waiting: they are logged, and it goes on when they are back. A
    position error that is seen twice does: the task that follows meets it, too, and fails with it.

    Args:
        reader: Whose position counts.
        topic: The topic to watch.
        poll_s: Seconds between two looks.
        at_most_s: Seconds until it fires in any case, so that one run of a long-running DAG has an end.
    """

    def __init__(self, reader: str, topic: str, poll_s: float, at_most_s: float) -> None:
        super().__init__()
        self.reader, self.topic, self.poll_s, self.at_most_s = reader, topic, poll_s, at_most_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow stores the trigger."""
        return (
            "include.airflow.backlog.BacklogTrigger",
            {"reader": self.reader, "topic": self.topic, "poll_s": self.poll_s, "at_most_s": self.at_most_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks every ``poll_s`` seconds, together with the other triggers."""
        started = time.monotonic()
        with Watch.shared() as watch:
            lag = stops = 0
            while lag == 0 and stops < ERRORS_SEEN and time.monotonic() - started < self.at_most_s:
                await asyncio.sleep(self._until_look())
                try:
                    lag = (await watch.backlog(self.reader, self.topic)).lag
                    stops = 0
                except Exception as error:
                    stops = stops + 1 if isinstance(error, PositionError) else 0
                    self.log.warning("Still waiting for %s: %s", self.topic, error)
                    await asyncio.sleep(min(5.0, 10 * self.poll_s))
            await asyncio.sleep(max(0.0, HOLD_FIRE_S - (time.monotonic() - started)))
            # Ends the task here: going back to a worker only to succeed would cost most of a second.
            yield TaskSuccessEvent()

    def _until_look(self) -> float:
        """Seconds until the next look: all triggers look at the same moments."""
        return self.poll_s - time.monotonic() % self.poll_s if self.poll_s else 0.0


class BacklogSensor(BaseSensorOperator):
    """Succeeds as soon as a topic holds records past the reader's durable position, or after ``at_most`` without any.

    Args:
        reader: Whose position counts.
        kafka_topic: The topic to watch.
        poll: Time between two looks while it waits.
        at_most: It succeeds after so long in any case; what follows then finds nothing to do.
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
        """Looks once, then defers. Returns the lag in offsets.

        When Kafka or PostgreSQL does not answer it defers, too: the trigger waits for them without a worker.
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
                # Never called, as the trigger itself ends the task.
                method_name="execute",
            )
        return lag
