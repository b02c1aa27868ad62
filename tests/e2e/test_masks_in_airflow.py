"""A stream with masks in a real Airflow: no table, file or log has the values, whatever becomes of their records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg2
import pytest
from psycopg2 import sql

from embedded import environment
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.errors import UserError
from include.kafka import client, topics
from include.project import ROOT
from include.warehouse.connection import connected
from tests.integration.landing import NOW
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SECRET = "tamarillo-5527"
LAND, RETRY, REPLAY, MAINTAIN = "land__masked", "retry__masked", "replay__masked", "maintain__streams"
# Other platforms of this checkout must not see the definition.
DEFINITION = '''
import os

from include.definitions import Gone

if os.environ.get("MILLRACE_HOME") != {home!r}:
    raise Gone

from typing import Annotated

import msgspec

from include.streams.definition import Header, Instant, Key, KeyedHash, LastCharacters, Null, Stream


class Masked(msgspec.Struct, kw_only=True):
    """An event."""

    ts: Instant
    email: str
    card: str
    id: Annotated[str, Key]
    trace: Annotated[str | None, Header("trace")]
    text: str = ""

    def __post_init__(self) -> None:
        if self.text == "refused" and not os.path.exists({marker!r}):
            raise ValueError(f"refused: {{self.email}}")


stream = Stream(
    name="masked",
    event=Masked,
    event_time="ts",
    key="id",
    current=True,
    mask={{"email": KeyedHash(), "card": LastCharacters(4), "id": KeyedHash(), "trace": Null}},
    quiet="3 seconds",
)
'''


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file: once it exists, the definition refuses no record."""
    return tmp_path / "corrected"


@pytest.fixture
def masked(airflow_api: AirflowApi, marker: Path) -> Iterator[AirflowApi]:
    """The API, with the DAGs of the stream."""
    path = ROOT / "include/streams/masked.py"
    topics.create("masked", partitions=1, config={})
    path.write_text(DEFINITION.format(home=os.environ["MILLRACE_HOME"], marker=str(marker)))

    def listed() -> bool:
        try:
            return {LAND, RETRY, REPLAY} <= set(airflow_api.dag_ids())
        except UserError:
            return False

    try:
        until("Airflow lists the DAGs", listed, 240, every_s=2)
        yield airflow_api
    finally:
        airflow_api.pause(LAND)
        path.unlink()


def send(*values: bytes) -> None:
    producer = client.producer()
    for value in values:
        producer.produce("masked", value, SECRET.encode(), headers=[("trace", SECRET.encode())])
    assert producer.flush(20) == 0


def record(**fields: Any) -> bytes:
    return msgspec.json.encode({"ts": NOW, "email": f"{SECRET}@x", "card": f"{SECRET}1111"} | fields)


def count(connection: Connection, table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", (table,))
        if cursor.fetchone() == (None,):
            return 0
        where = "WHERE stream = 'masked'" if table == "millrace.dead_letter" else ""
        cursor.execute(f"SELECT count(*) FROM {table} {where}")
        (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def run(airflow: AirflowApi, dag: str) -> None:
    started = airflow.trigger(dag)
    assert airflow.wait(dag, started.run_id, timeout=240).state == "success"


def tables_with_the_secret(connection: Connection) -> Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in cursor.fetchall():
            query = sql.SQL(
                "SELECT count(*) FROM {} AS stored WHERE CAST(stored AS text) LIKE ANY "
                "(ARRAY['%%' || reverse(%s) || '%%', '%%' || reverse(%s) || '%%'])"
            ).format(sql.Identifier(schema, table))
            # bytea is shown in hexadecimal. Reversed, because PostgreSQL logs slow statements such as this one.
            cursor.execute(query, (SECRET[::-1], SECRET.encode().hex()[::-1]))
            if cursor.fetchone() != (0,):
                yield f"{schema}.{table}"


@pytest.mark.timeout(900)
def test_no_secret_is_stored(airflow_platform: Platform, masked: AirflowApi, marker: Path) -> None:
    with connected("test") as warehouse:
        warehouse.autocommit = True
        good = record()
        send(good, record(text="refused"), b"{" + SECRET.encode(), SECRET.encode(), record(ts="2001-01-01T00:00:00Z"))
        masked.unpause(LAND)
        until("a record has landed", lambda: count(warehouse, "landing.masked") == 1, 240, every_s=1)
        until("others are kept", lambda: count(warehouse, "millrace.dead_letter") == 4, 60, every_s=1)
        marker.touch()
        run(masked, RETRY)
        assert count(warehouse, "landing.masked") == 2
        run(masked, REPLAY)
        assert (count(warehouse, "landing.masked"), count(warehouse, "millrace.dead_letter")) == (2, 3)
        masked.pause(LAND)
        found = list(tables_with_the_secret(warehouse))
    metadata = environment.metadata_url(airflow_platform.home).replace("postgresql+psycopg2", "postgresql")
    connection = psycopg2.connect(metadata)
    found += tables_with_the_secret(connection)
    connection.close()
    home = airflow_platform.home.path
    for path in home.rglob("*"):
        of_kafka = path.relative_to(home).parts[0] == "kafka"
        if not of_kafka and path.is_file() and not path.is_symlink():
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                # A server has removed it in the meantime.
                continue
            if SECRET.encode() in text:
                found.append(str(path))
    assert found == []
