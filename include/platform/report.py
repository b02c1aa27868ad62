"""What `./millrace status --json` says beyond the health of the components."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.errors import UserError
from include.platform import postgres
from include.platform.platform import Platform
from include.warehouse.queries import load

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream


def lag(platform: Platform) -> list[dict[str, Any]]:
    """For each reader and topic: committed offsets not yet read, and whether an open transaction holds more back.

    For a stream also the time since which one does, how long the oldest record waits, and the newest event that landed.
    """
    from include.kafka import backlog, client
    from include.streams import definitions
    from include.warehouse.connection import connected

    streams = {stream.reader: stream for stream in definitions.find().valid.values()}

    os.environ.update(platform.environment())
    found = []
    with connected("millrace status") as warehouse:
        brokers = client.admin()
        for reader, topic in list(load("platform").readers(warehouse)):
            entry: dict[str, Any] = {"reader": reader, "topic": topic}
            if reader in streams:
                found.append(entry | _freshness(streams[reader], warehouse))
                continue
            try:
                measured = backlog.measure(brokers, warehouse, reader, topic)
            except UserError as error:
                found.append(entry | {"error": str(error)})
            else:
                found.append(entry | {"lag": measured.lag, "blocked": measured.blocked})
    return found


def _freshness(stream: Stream, warehouse: Connection) -> dict[str, Any]:
    from include.kafka.stops import Stop
    from include.landing import choices, status

    try:
        now: status.Totals = status.of(stream, warehouse)
        error = {}
    except UserError as unknown:
        if isinstance(unknown, Stop):
            unknown = choices.advised(unknown, stream)
        # How fresh the table is, PostgreSQL knows without Kafka.
        now = status.totals(stream, warehouse)
        error = {"error": str(unknown)}
    known = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(now).items()}
    return error | known | ({} if error else {"blocked": known["blocked_since"] is not None})


def last_runs(platform: Platform) -> list[dict[str, Any]]:
    """The latest run of every DAG; times in ISO 8601."""
    names = ("dag", "run", "state", "started", "ended")
    port = platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port, "airflow")) as metadata:
        runs = [dict(zip(names, run, strict=True)) for run in load("platform").last_runs(metadata)]
    return [
        {name: value.isoformat() if name in ("started", "ended") and value else value for name, value in run.items()}
        for run in runs
    ]
