"""The sensor that waits for a stream's events, and creates the topic of a stream that has none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.airflow.backlog import BacklogSensor
from include.kafka.position_errors import PositionError, TopicMissing

if TYPE_CHECKING:
    from airflow.sdk import Context


class StreamSensor(BacklogSensor):
    """Succeeds as soon as a stream's topic holds records past its position.

    Args:
        stream_name: The stream.
        **kwargs: The arguments of ``BacklogSensor``.
    """

    def __init__(self, *, stream_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stream_name = stream_name

    def execute(self, context: Context) -> int:
        """Measures once, then defers. Returns the lag in offsets."""
        from include.airflow import dag_runs
        from include.landing import failures
        from include.landing.recovery import with_remedy
        from include.streams import definitions

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
        with dag_runs.airflow_errors():
            try:
                return self._measure(context)
            except PositionError as error:
                named = with_remedy(error, definitions.get(self.stream_name))
                failures.note(self.stream_name, failures.WAIT, named)
                raise named from error

    def _measure(self, context: Context) -> int:
        try:
            return super().execute(context)
        except TopicMissing as missing:
            self._create_topic(missing.topic)
            return super().execute(context)

    def _create_topic(self, topic: str) -> None:
        """Creates the topic of a stream that was never read.

        Raises:
            TopicMissing: The stream was read before, so its topic was deleted.
        """
        from include.kafka import position
        from include.streams import definitions, produce
        from include.warehouse.connection import connected

        with connected("millrace sensor") as connection:
            if position.read_positions(connection, self.reader, topic):
                raise TopicMissing(topic)
        produce.make_topic(definitions.get(self.stream_name))
