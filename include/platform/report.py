"""What `./millrace status --json` says beyond the health of the components."""

import os
from contextlib import closing
from typing import Any

from include.errors import UserError
from include.platform import postgres
from include.platform.platform import Platform
from include.warehouse.queries import load


def lag(platform: Platform) -> list[dict[str, Any]]:
    """For each reader and topic: committed offsets not yet read, and whether an open transaction holds more back."""
    from include.kafka import backlog, client
    from include.warehouse.connection import connected

    os.environ.update(platform.environment())
    found = []
    with connected("millrace status") as warehouse:
        brokers = client.admin()
        for reader, topic in list(load("platform").readers(warehouse)):
            entry: dict[str, Any] = {"reader": reader, "topic": topic}
            try:
                measured = backlog.measure(brokers, warehouse, reader, topic)
            except UserError as error:
                found.append(entry | {"error": str(error)})
            else:
                found.append(entry | {"lag": measured.lag, "blocked": measured.blocked})
    return found


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
