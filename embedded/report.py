"""The report of `./millrace status --json`: components, lag, last runs."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from embedded import environment, postgres
from embedded.platform import Health, Platform
from embedded.ports import HOST
from include.errors import UserError
from include.warehouse.queries import load

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

    from include.landing.status import Totals
    from include.streams.definition import Stream


def status(platform: Platform, healths: list[Health]) -> dict[str, Any]:
    """The report as its JSON has it.

    Args:
        healths: Of every component; empty for a platform that is down.
    """
    ports = platform.home.state().get("ports", {})
    addresses = {"airflow": f"http://{HOST}:{ports.get('api')}"}
    addresses |= {name: f"{HOST}:{ports.get(name)}" for name in ("kafka", "postgres")}
    healthy = {health.name for health in healths if health.healthy}
    return {
        "home": str(platform.home.path),
        "addresses": addresses if healths else {},
        "components": [asdict(health) for health in healths],
        "lag": lag(platform, healthy) if healths else [],
        "last_runs": last_runs(platform) if healthy >= {"postgres", "scheduler"} else [],
    }


def lag(platform: Platform, healthy: Collection[str]) -> list[dict[str, Any]]:
    """For each reader and topic: the committed offsets not yet read, and whether an open transaction blocks others.

    For a stream also the time since which a transaction blocks, how long the oldest record has waited, the newest event
    that landed, and problems: a task that fails, a table that is locked, a partition that cannot be dropped. What is
    unknown while Kafka or PostgreSQL is down is reported as an error.

    Args:
        healthy: The names of the healthy components.
    """
    from include.streams import definitions

    streams = {stream.reader: stream for stream in definitions.find().valid.values()}

    def unknown(reason: str) -> list[dict[str, Any]]:
        return [{"reader": stream.reader, "topic": stream.topic, "error": reason} for stream in streams.values()]

    # When the user has other servers, the health of the platform's servers does not matter.
    own = environment.overrides()
    if "postgres" not in healthy and "AIRFLOW_CONN_MILLRACE_POSTGRES" not in own:
        return unknown("the lag is unknown while PostgreSQL, which stores the positions, is down")

    from include.kafka import client
    from include.warehouse.connection import connected

    os.environ.update(platform.environment())
    try:
        with connected("millrace status") as warehouse:
            if not load("platform").is_migrated(warehouse):
                return []
            brokers = client.admin() if "kafka" in healthy or "AIRFLOW_CONN_MILLRACE_KAFKA" in own else None
            # A stream that reads several topics is one line, with their lags.
            read = dict.fromkeys(
                (reader, streams[reader].topic if reader in streams and streams[reader].topics is not None else topic)
                for reader, topic in list(load("platform").readers(warehouse))
            )
            return [
                {"reader": reader, "topic": topic} | _entry(reader, topic, streams.get(reader), warehouse, brokers)
                for reader, topic in read
            ]
    except UserError as error:
        return unknown(f"the lag is unknown: {error}")


def _entry(
    reader: str, topic: str, stream: Stream | None, warehouse: Connection, brokers: AdminClient | None
) -> dict[str, Any]:
    """The lag of one reader, or the error for which it is unknown.

    Args:
        stream: The stream that the reader belongs to; None for other readers.
        brokers: None while Kafka is down.
    """
    from include.kafka import backlog

    if brokers is None:
        unknown = {"error": "the lag is unknown while Kafka is down"}
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
        measured = _as_json(status.of(stream, warehouse))
    except UserError as error:
        if isinstance(error, PositionError):
            error = recovery.with_remedy(error, stream)
        return {"error": str(error)} | _totals(stream, warehouse)
    return measured | {"blocked": measured["blocked_since"] is not None}


def _totals(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    """How fresh the table is, which needs PostgreSQL only."""
    from include.landing import status

    return _as_json(status.totals(stream, warehouse))


def _problems(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    """The problems of the stream that the warehouse stores; empty when there are none."""
    from include.landing import problems

    found = [vars(problem) for problem in problems.of(warehouse, stream)]
    return {"problems": found} if found else {}


def _as_json(totals: Totals) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(totals).items()}


def waiting(lag: int) -> str:
    """How many records wait, in words."""
    return "1 record waits" if lag == 1 else f"{lag:,} records wait"


def last_runs(platform: Platform) -> list[dict[str, Any]]:
    """The latest run of every DAG, with times in ISO 8601."""
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
