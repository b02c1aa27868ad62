"""Debezium's PostgreSQL connector on standalone Kafka Connect: a real source of change events, which tests kill.

`./millrace python -m tests.faults.toolbox.connect` resolves the jars again and writes their lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.peers import debezium
from embedded.home import Home
from embedded.ports import HOST
from tests.faults.toolbox.servers import Server, free_port

VERSION = debezium.VERSIONS[0]
LOCK = Path(__file__).with_name(f"debezium-postgres-{VERSION}.lock.toml")
COORDINATES = (f"io.debezium:debezium-connector-postgres:{VERSION}", *debezium.coordinates(VERSION)[1:])


class Connect(Server):
    """Kafka Connect with one connector, which reads a PostgreSQL database with ``wal_level=logical``.

    Args:
        brokers: The address of Kafka.
        source: The settings of the connector that are not always the same.
        has_schemas: Whether each record has its schema.
    """

    name = "connect"

    def __init__(self, home: Home, brokers: str, source: Mapping[str, Any], *, has_schemas: bool = False) -> None:
        super().__init__(home)
        self._port = free_port()
        self._work = home.run / "connect"
        self._work.mkdir(parents=True, exist_ok=True)
        self._brokers, self._source, self._has_schemas = brokers, source, has_schemas

    def command(self) -> list[str]:
        jars = Home.current().environment / f"debezium-postgres-{VERSION}"
        debezium.install_lock(LOCK, jars)
        converter = "org.apache.kafka.connect.json.JsonConverter"
        enabled = str(self._has_schemas).lower()
        worker = {
            "bootstrap.servers": self._brokers,
            "listeners": f"http://{HOST}:{self._port}",
            "key.converter": converter,
            "key.converter.schemas.enable": enabled,
            "value.converter": converter,
            "value.converter.schemas.enable": enabled,
            "offset.storage.file.filename": self._work / "offsets",
            "offset.flush.interval.ms": 1_000,
        }
        return debezium.command(jars, self._work, worker, self._source, heap="512m")

    def answers(self) -> bool:
        return self.states() == {"RUNNING"}

    @property
    def has_failed(self) -> bool:
        """Whether the process or its connector has ended with an error."""
        return self._process is None or self._process.poll() is not None or "FAILED" in self.states()

    def restart(self) -> None:
        """Kills the process, if it runs, and starts it again."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.start()

    def states(self) -> set[str]:
        """The states of the connector and of its task; none while the process does not answer."""
        try:
            with urlopen(f"http://{HOST}:{self._port}/connectors/{self._source['name']}/status", timeout=5) as answer:
                status = json.load(answer)
        except (OSError, ValueError):
            return set()
        tasks = [task["state"] for task in status["tasks"]] or ["UNASSIGNED"]
        return {status["connector"]["state"], *tasks}


def source_settings(port: int, password: str, database: str, table: str, topic: str) -> dict[str, Any]:
    """The settings of the connector for one table.

    Args:
        topic: The topic, which has another name by default.
    """
    return {
        "name": "source",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": 1,
        "plugin.name": "pgoutput",
        "database.hostname": HOST,
        "database.port": port,
        "database.user": "postgres",
        "database.password": password,
        "database.dbname": database,
        "topic.prefix": "source",
        "table.include.list": table,
        "slot.name": "millrace",
        "publication.autocreate.mode": "filtered",
        "poll.interval.ms": 50,
        "transforms": "route",
        "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.route.regex": ".*",
        "transforms.route.replacement": topic,
        # The server may be down for a while.
        "errors.max.retries": -1,
        "retriable.restart.connector.wait.ms": 500,
    }


if __name__ == "__main__":
    print(debezium.write_lock_of(LOCK, COORDINATES), "jars locked")
