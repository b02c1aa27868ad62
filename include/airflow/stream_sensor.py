"""The sensor that waits for a stream's events, and makes the topic of a stream that has none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.airflow.backlog import BacklogSensor
from include.kafka.position_errors import PositionError, TopicMissing

if TYPE_CHECKING:
    from airflow.sdk import Context


class StreamSensor(BacklogSensor):
    """Succeeds as soon as a stream's topic holds records past its position.

    Args:
        stream_name: The stream; the others are those of ``BacklogSensor``.
    """

    def __init__(self, *, stream_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream_name = stream_name

    def execute(self, context: Context) -> int:
        """Looks once, then defers. Returns the lag in offsets."""
        from include.airflow import dag_runs
        from include.airflow.drain_task import stream_errors
        from include.landing import failures
        from include.landing.recovery import with_remedy
        from include.streams import definitions

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
        with stream_errors():
            try:
                return self._look(context)
            except PositionError as stop:
                named = with_remedy(stop, definitions.get(self.stream_name))
                failures.note(self.stream_name, failures.WAIT, named)
                raise named from stop

    def _look(self, context: Context) -> int:
        try:
            return super().execute(context)
        except TopicMissing:
            self._make_topic()
            return super().execute(context)

    def _make_topic(self) -> None:
        """A stream that was never read gets its topic; the topic of another has been deleted, which is a named stop."""
        from include.kafka import position
        from include.streams import definitions, produce
        from include.warehouse.connection import connected

        with connected("millrace sensor") as connection:
            if position.read_positions(connection, self.reader, self.kafka_topic):
                raise TopicMissing(self.kafka_topic)
        produce.make_topic(definitions.get(self.stream_name))
