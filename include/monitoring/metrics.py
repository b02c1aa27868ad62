"""Metrics in the OpenMetrics format for Prometheus, read from the servers at the moment of the scrape.

What cannot be known at that moment has no sample, and ``millrace_up`` says which server does not answer. No value is
kept from one scrape to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from include.errors import UserError
from include.kafka import topic_choice, topics
from include.kafka.position_errors import PositionError
from include.monitoring import lag
from include.monitoring.lag import Lag
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from psycopg2.extensions import connection as Connection

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TIMEOUT_S = 2
"""Seconds to wait for a connection, and for each request to Kafka. Prometheus waits ten seconds for all of them."""
# The server ends a query that waits longer for a lock, or runs longer.
_OPTIONS = "-c timezone=UTC -c lock_timeout=500 -c statement_timeout=3000"


class Kind(NamedTuple):
    """One metric.

    Attributes:
        type: ``gauge``, or ``counter`` for a number that never falls; its name ends in ``_total``.
        labels: The names of its labels.
        unit: As Prometheus writes it, which the name ends with; empty for none.
        help: What it is.
    """

    type: str
    labels: tuple[str, ...]
    unit: str
    help: str


KINDS: dict[str, Kind] = {
    "millrace_up": Kind(
        "gauge",
        ("part",),
        "",
        "1 if the server answered: kafka, postgresql (the warehouse) or airflow (the metadata database).",
    ),
    "millrace_stream_lag_records": Kind(
        "gauge", ("stream",), "records", "Offsets between the stored position and the end of the topic."
    ),
    "millrace_stream_lag_seconds": Kind(
        "gauge", ("stream",), "seconds", "Age of the oldest record that waits, 0 if none waits."
    ),
    "millrace_stream_topic_lag_records": Kind(
        "gauge", ("stream", "topic"), "records", "The same for each topic of a stream that reads several."
    ),
    "millrace_stream_newest_event_timestamp_seconds": Kind(
        "gauge", ("stream",), "seconds", "The newest event time that has landed."
    ),
    "millrace_stream_landed_records_total": Kind("counter", ("stream",), "", "Records that have landed in the table."),
    "millrace_stream_filtered_records_total": Kind(
        "counter", ("stream",), "", "Records that the definition's where has filtered."
    ),
    "millrace_stream_dead_letters": Kind(
        "gauge", ("stream", "disposition"), "", "Records that are stored as dead letters or quarantined."
    ),
    "millrace_stream_oldest_dead_letter_timestamp_seconds": Kind(
        "gauge", ("stream",), "seconds", "When the oldest of these records was stored; absent if there are none."
    ),
    "millrace_stream_stopped": Kind(
        "gauge",
        ("stream", "task", "code"),
        "",
        "1 for each task that fails, with the code of its error, see docs/errors.md; 0 with empty labels if none does.",
    ),
    "millrace_stream_partitioned_until_timestamp_seconds": Kind(
        "gauge", ("stream",), "seconds", "Until when partitions of the table exist."
    ),
    "millrace_dataset_newest_version_timestamp_seconds": Kind(
        "gauge", ("dataset",), "seconds", "When the newest version was sealed."
    ),
    "millrace_dataset_last_training_timestamp_seconds": Kind(
        "gauge", ("dataset",), "seconds", "When the newest successful training run ended."
    ),
    "millrace_champion_since_timestamp_seconds": Kind(
        "gauge", ("dataset", "model"), "seconds", "Since when this model is the champion."
    ),
    "millrace_champion_score": Kind(
        "gauge",
        ("dataset", "metric"),
        "",
        "The metric, such as accuracy, of the champion on the newest version that was compared with it.",
    ),
    "millrace_challenger_e_value": Kind(
        "gauge", ("dataset", "model"), "", "The e-value of the newest verdict's strongest challenger."
    ),
    "millrace_challenger_e_value_threshold": Kind(
        "gauge", ("dataset", "model"), "", "The e-value that it must reach to be promoted."
    ),
    "millrace_schedule_last_success_timestamp_seconds": Kind(
        "gauge", ("dag_id",), "seconds", "When a run of this scheduled DAG last succeeded."
    ),
    "millrace_expectation_failed": Kind(
        "gauge", ("subject", "expectation"), "", "1 for each expectation of a definition that fails now."
    ),
}


def render(metadata_url: str | None = None) -> bytes:
    """All metrics now, in the format of ``CONTENT_TYPE``. It waits a few seconds for servers that do not answer.

    Args:
        metadata_url: The URL of Airflow's metadata database, for the last success of each schedule. They are left out
            when None.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.openmetrics.exposition import generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metadata_url))
    rendered: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return rendered


class _Samples:
    """The samples of one scrape."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name in KINDS}

    def add(self, name: str, value: float | datetime | None, *labels: str) -> None:
        """Adds a sample, unless the value is unknown."""
        if value is not None:
            self._found[name].append((labels, value.timestamp() if isinstance(value, datetime) else float(value)))

    def metrics(self) -> Iterator[Metric]:
        """The metrics that have samples, as prometheus-client writes them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, samples in self._found.items():
            kind = KINDS[name]
            family = CounterMetricFamily if kind.type == "counter" else GaugeMetricFamily
            metric = family(name.removesuffix("_total"), kind.help, labels=kind.labels, unit=kind.unit)
            for labels, value in samples:
                metric.add_metric(list(labels), value)
            if samples:
                yield metric


class _Collector:
    """Collects everything from the servers when it is asked."""

    def __init__(self, metadata_url: str | None) -> None:
        self._metadata_url = metadata_url

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client writes."""
        import psycopg2

        samples = _Samples()
        try:
            with connected("millrace metrics", connect_timeout=TIMEOUT_S, options=_OPTIONS) as connection:
                streams = _add_streams(samples, connection)
                _add_datasets(samples, connection)
                kafka = _add_lag(samples, connection, streams)
            postgresql = True
        except (UserError, psycopg2.Error):
            # What was read before the server failed is left out, too.
            samples, postgresql, kafka = _Samples(), False, _kafka_answers()
        samples.add("millrace_up", kafka, "kafka")
        samples.add("millrace_up", postgresql, "postgresql")
        if self._metadata_url is not None:
            samples.add("millrace_up", _add_schedules(samples, self._metadata_url), "airflow")
        yield from samples.metrics()


def _add_streams(samples: _Samples, connection: Connection) -> dict[str, str]:
    """Adds what the warehouse knows of each stream. Returns the topics of the streams that have one."""
    import psycopg2

    sql = queries.load("monitoring")
    topics_of = {}
    for row in sql.streams(connection):
        samples.add("millrace_stream_newest_event_timestamp_seconds", row.newest_event, row.stream)
        samples.add("millrace_stream_landed_records_total", row.landed, row.stream)
        samples.add("millrace_stream_filtered_records_total", row.filtered, row.stream)
        samples.add("millrace_stream_dead_letters", row.dead_letters, row.stream, "dead letter")
        samples.add("millrace_stream_dead_letters", row.quarantined, row.stream, "quarantined")
        samples.add("millrace_stream_oldest_dead_letter_timestamp_seconds", row.oldest_dead_letter_at, row.stream)
        if row.topic is not None:
            topics_of[row.stream] = row.topic
    connection.rollback()
    try:
        for stream, until in sql.partitioned_until(connection):
            samples.add("millrace_stream_partitioned_until_timestamp_seconds", until, stream)
    except psycopg2.errors.LockNotAvailable:
        # A session holds an exclusive lock on a partition: its bounds are unknown until it ends.
        pass
    connection.rollback()
    return topics_of


def _add_lag(samples: _Samples, connection: Connection, streams: Mapping[str, str]) -> bool:
    """Adds the lag of each stream and what stops it. Returns whether Kafka answered."""
    failing: dict[str, dict[str, str]] = {stream: {} for stream in streams}
    for row in queries.load("monitoring").failing_tasks(connection):
        failing.setdefault(row.stream, {})[row.task] = row.code or ""
    connection.rollback()
    measured: Mapping[str, Lag | UserError] | None = None
    with suppress(UserError):
        measured = lag.measure(connection, streams, TIMEOUT_S)
    for stream, found in (measured or {}).items():
        if isinstance(found, Lag):
            samples.add("millrace_stream_lag_records", found.records, stream)
            samples.add("millrace_stream_lag_seconds", found.seconds, stream)
            if not topic_choice.parse(streams[stream]).is_one:
                for topic, records in found.topics.items():
                    samples.add("millrace_stream_topic_lag_records", records, stream, topic)
        elif isinstance(found, PositionError) and found.code not in failing[stream].values():
            failing[stream][""] = found.code
    for stream, tasks in failing.items():
        for task, code in tasks.items():
            samples.add("millrace_stream_stopped", True, stream, task, code)
        if not tasks:
            samples.add("millrace_stream_stopped", False, stream, "", "")
    if measured is None:
        return False
    return not measured or any(isinstance(found, Lag | PositionError) for found in measured.values())


def _add_datasets(samples: _Samples, connection: Connection) -> None:
    """Adds what the warehouse knows of each dataset, and the expectations that fail."""
    sql = queries.load("monitoring")
    for row in sql.datasets(connection):
        samples.add("millrace_dataset_newest_version_timestamp_seconds", row.newest_sealed_at, row.dataset)
        samples.add("millrace_dataset_last_training_timestamp_seconds", row.last_success_at, row.dataset)
        if row.live_model is not None:
            samples.add("millrace_champion_since_timestamp_seconds", row.live_since, row.dataset, row.live_model)
        if row.metric is not None:
            samples.add("millrace_champion_score", row.live_value, row.dataset, row.metric)
        if row.verdict_model is not None:
            samples.add("millrace_challenger_e_value", row.e_value, row.dataset, row.verdict_model)
            samples.add("millrace_challenger_e_value_threshold", row.threshold, row.dataset, row.verdict_model)
    for subject, expectation, _ in sql.failed_expectations(connection):
        samples.add("millrace_expectation_failed", True, subject, expectation)
    connection.rollback()


def _add_schedules(samples: _Samples, url: str) -> bool:
    """Adds the last success of each scheduled DAG. Returns whether Airflow's database answered."""
    import psycopg2

    try:
        connection = psycopg2.connect(
            url.replace("postgresql+psycopg2://", "postgresql://"),
            connect_timeout=TIMEOUT_S,
            options=_OPTIONS,
            application_name="millrace metrics",
        )
        with closing(connection):
            found = list(queries.load("metadata").last_successes(connection))
    except psycopg2.Error:
        return False
    for dag_id, ended in found:
        samples.add("millrace_schedule_last_success_timestamp_seconds", ended, dag_id)
    return True


def _kafka_answers() -> bool:
    try:
        topics.connected(TIMEOUT_S)
    except UserError:
        return False
    return True
