"""What `./millrace status --json` says beyond the health of the components."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from embedded import environment, postgres
from embedded.platform import Platform
from include.errors import UserError
from include.warehouse.queries import load

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

    from include.landing.status import Totals
    from include.streams.definition import Stream


def lag(platform: Platform, healthy: Collection[str]) -> list[dict[str, Any]]:
    """For each reader and topic: committed offsets not yet read, and whether an open transaction holds more back.

    For a stream also the time since which one does, how long the oldest record waits, the newest event that landed, and
    what is wrong: a task that fails, a table that is locked, a partition that cannot be dropped.
    What cannot be known while Kafka or PostgreSQL is down is reported as an error.

    Args:
        healthy: The names of the components that are well.
    """
    from include.streams import definitions

    streams = {stream.reader: stream for stream in definitions.find().valid.values()}

    def unknown(why: str) -> list[dict[str, Any]]:
        return [{"reader": stream.reader, "topic": stream.topic, "error": why} for stream in streams.values()]

    # With connections of the user's own, the health of the platform's servers says nothing.
    own = environment.overrides()
    if "postgres" not in healthy and "AIRFLOW_CONN_MILLRACE_POSTGRES" not in own:
        return unknown("unknown: PostgreSQL is ill, which alone knows what has landed")

    from include.kafka import client
    from include.warehouse.connection import connected

    os.environ.update(platform.environment())
    try:
        with connected("millrace status") as warehouse:
            if not load("platform").is_migrated(warehouse):
                return []
            brokers = client.admin() if "kafka" in healthy or "AIRFLOW_CONN_MILLRACE_KAFKA" in own else None
            return [
                {"reader": reader, "topic": topic} | _entry(reader, topic, streams.get(reader), warehouse, brokers)
                for reader, topic in list(load("platform").readers(warehouse))
            ]
    except UserError as error:
        return unknown(f"unknown: {error}")


def _entry(
    reader: str, topic: str, stream: Stream | None, warehouse: Connection, brokers: AdminClient | None
) -> dict[str, Any]:
    """What is known of one reader's topic.

    Args:
        stream: The stream, when it is one's reader.
        brokers: None while Kafka is ill.
    """
    from include.kafka import backlog

    if brokers is None:
        unknown = {"error": "what waits is unknown: Kafka is ill"}
        return unknown | (_totals(stream, warehouse) | _problems(stream, warehouse) if stream else {})
    if stream:
        return _freshness(stream, warehouse) | _problems(stream, warehouse)
    try:
        measured = backlog.measure(brokers, warehouse, reader, topic)
    except UserError as error:
        return {"error": str(error)}
    return {"lag": measured.lag, "blocked": measured.blocked}


def _freshness(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    from include.kafka.position_errors import PositionError
    from include.landing import recovery, status

    try:
        known = _known(status.of(stream, warehouse))
    except UserError as unknown:
        if isinstance(unknown, PositionError):
            unknown = recovery.with_remedy(unknown, stream)
        return {"error": str(unknown)} | _totals(stream, warehouse)
    return known | {"blocked": known["blocked_since"] is not None}


def _totals(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    """How fresh the table is, which PostgreSQL knows without Kafka."""
    from include.landing import status

    return _known(status.totals(stream, warehouse))


def _problems(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    """What is wrong with the stream by the warehouse; no entry when nothing is."""
    from include.landing import problems

    found = [vars(problem) for problem in problems.of(warehouse, stream)]
    return {"problems": found} if found else {}


def _known(totals: Totals) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(totals).items()}


def last_runs(platform: Platform) -> list[dict[str, Any]]:
    """The latest run of every DAG; times in ISO 8601."""
    port = platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port, "airflow")) as metadata:
        return [
            {
                "dag": run.dag_id,
                "run": run.run_id,
                "state": run.state,
                "started": run.start_date and run.start_date.isoformat(),
                "ended": run.end_date and run.end_date.isoformat(),
            }
            for run in load("metadata").last_runs(metadata)
        ]
