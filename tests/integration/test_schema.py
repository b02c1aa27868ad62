"""The warehouse's schema: one linear history, and the adoption of a warehouse of the former, branched history."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from embedded import environment, postgres
from include.error_codes import Code
from include.project import ROOT
from include.warehouse import migrations, schema
from include.warehouse.connection import connect
from include.warehouse.revision import mismatch
from tests.errors import raises

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from embedded.platform import Platform

FORMER = Path(__file__).parent / "data/former_warehouse.sql.gz"
# What a person can see of a schema, one row for each thing that has a name.
CATALOG = {
    "columns": (
        "SELECT relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,"
        " attstorage, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)"
        " WHERE relnamespace = 'millrace'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0"
    ),
    "tables": (
        "SELECT relname, relkind, reloptions, obj_description(oid, 'pg_class') FROM pg_class"
        " WHERE relnamespace IN ('millrace'::regnamespace, 'landing'::regnamespace)"
    ),
    "constraints": (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'millrace'::regnamespace"
    ),
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'millrace'",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'millrace'",
    "schemas": "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname !~ '^pg_'",
}
VERSION = "a" * 64


def catalog(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = ''")
        for kind, query in CATALOG.items():
            cursor.execute(query)
            found[kind] = sorted(cursor.fetchall(), key=repr)
    connection.rollback()
    return found


@pytest.fixture
def former(warehouse: Connection, services: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection to a warehouse of the former history, with some rows; ``migrate`` goes to it."""
    name = f"former_{warehouse.info.backend_pid}"
    port = services.home.state()["ports"]["postgres"]
    with closing(postgres.connect(services.home, port)) as superuser, superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} OWNER warehouse")
        monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", environment.warehouse_connection(services.home, name))
        with closing(connect("test")) as connection:
            with connection.cursor() as inside:
                inside.execute(gzip.decompress(FORMER.read_bytes()).decode())
                inside.execute("SET search_path = DEFAULT")
                inside.execute(ROWS, {"version": VERSION})
            connection.commit()
            yield connection
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


ROWS = """
INSERT INTO millrace.schema_revision VALUES ('0010_landing_tables'), ('0011_retirement');
INSERT INTO millrace.position (reader, topic, partition, topic_id, next_offset, owner, backend_pid, backend_start)
VALUES ('landing:clicks', 'clicks', 0, 'id', 100, 'an earlier version', 0, now());
INSERT INTO millrace.landing_ledger VALUES ('clicks', 1, 0, 1, 0, 100, 97, 2, 1, 0, 0, 12345, now());
INSERT INTO millrace.dead_letter (stream, kafka_incarnation, kafka_partition, kafka_offset, disposition, reason,
                                  appended_at)
VALUES ('clicks', 1, 0, 7, 'dead letter', 'no number', now());
INSERT INTO millrace.dataset_version (version, dataset, topic, kind, train_rows, test_rows, split, content, asked_by,
                                      code, manifest, manifest_offset, sealed_at, forgotten_at)
VALUES (%(version)s, 'churn', 'millrace.dataset.churn', 'classification', 80, 20, '{}', 'content', 'ann', 'code', '',
        0, now(), '2026-01-02 03:04:05Z');
INSERT INTO millrace.training_run (dataset, run_id, version, state, seed, parameters, cause, asked_by, definition, code,
                                   libraries)
VALUES ('churn', 'sealed', %(version)s, 'success', 0, '{}', 'sealed', 'ann', 'definition', 'code', '{}');
INSERT INTO millrace.artifact (dataset, run, model, sha256, content, probe, trained_on)
VALUES ('churn', 1, 'tree', %(version)s, 'content', 'probe', '');
INSERT INTO millrace.gate (run, dataset, version, reign, state, reason)
VALUES (1, 'churn', %(version)s, 0, 'judged', '');
INSERT INTO millrace.score VALUES (1, 'live', 'baseline', 'accuracy', 0.5, 20);
INSERT INTO millrace.reign (dataset, reign, artifact, former, cause, decider, reason)
VALUES ('churn', 1, 1, NULL, 'evidence', 'the gate', 'better'), ('churn', 2, 1, 1, 'approval', 'ann', 'newer'),
       ('churn', 3, NULL, 2, 'retirement', 'bob', 'a column went');
"""


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchall()
    connection.rollback()
    return found


def counts(connection: Connection) -> dict[str, int]:
    tables = rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'millrace'")
    return {table: rows(connection, f"SELECT count(*) FROM millrace.{table}")[0][0] for (table,) in tables}


def test_a_warehouse_of_the_former_history_becomes_equal_to_a_new_one(
    former: Connection, warehouse: Connection
) -> None:
    before = counts(former)
    migrations.migrate()
    migrations.migrate()
    assert catalog(former) == catalog(warehouse)
    before["champion_change"] = before.pop("reign")
    after = counts(former)
    assert {table: after.pop(table) for table in before} == before | {"schema_revision": 1}
    assert {table for table, count in after.items() if count} == {"landing_total"}
    query = "SELECT number, previous, artifact, rollback_to, cause, decider FROM millrace.champion_change ORDER BY 1"
    assert rows(former, query) == [
        (1, None, 1, None, "evidence", "the gate"),
        (2, 1, 1, 1, "approval", "ann"),
        (3, 2, None, 2, "retirement", "bob"),
    ]
    assert rows(former, "SELECT expired_at::text FROM millrace.dataset_version") == [("2026-01-02 03:04:05+00",)]
    assert rows(former, "SELECT champion_number, live_model, live, rank FROM millrace.value") == [
        (0, "baseline", 0.5, 1)
    ]
    assert rows(former, "SELECT next_offset FROM millrace.position") == [(100,)]


def test_views_of_a_persons_own_stay(former: Connection) -> None:
    with former.cursor() as cursor:
        cursor.execute("CREATE VIEW public.mine AS SELECT dataset, reign, cause FROM millrace.champion_history")
    former.commit()
    migrations.migrate()
    assert rows(former, "SELECT * FROM public.mine ORDER BY 2")[1] == ("churn", 2, "approval")


@pytest.mark.parametrize(
    ("revisions", "code"),
    [
        (["0008_landing_replay", "0011_retirement"], Code.SCHEMA_OUTDATED),
        (["9999_later"], Code.SCHEMA_TOO_NEW),
    ],
)
def test_a_revision_that_cannot_be_upgraded_is_an_error(former: Connection, revisions: list[str], code: Code) -> None:
    with former.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.schema_revision")
        cursor.execute("INSERT INTO millrace.schema_revision SELECT unnest(%s)", (revisions,))
    former.commit()
    before = counts(former)
    with raises(code, ", ".join(revisions)):
        migrations.migrate()
    assert counts(former) == before


@pytest.mark.parametrize(
    ("revision", "code"), [("0006_current_state", Code.SCHEMA_NOT_MIGRATED), ("9999_later", Code.SCHEMA_TOO_NEW)]
)
def test_a_missing_column_is_explained_by_a_schema_of_another_version(
    warehouse: Connection, revision: str, code: Code
) -> None:
    def error() -> BaseException:
        with warehouse.cursor() as cursor, pytest.raises(psycopg2.Error) as caught:
            cursor.execute("SELECT missing FROM millrace.position")
        warehouse.rollback()
        return caught.value

    assert mismatch(error()) is None
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE millrace.schema_revision SET version_num = %s", (revision,))
    warehouse.commit()
    found = mismatch(error())
    assert found is not None
    assert found.code == code
    assert revision in found.what
    with warehouse.cursor() as cursor, pytest.raises(psycopg2.Error) as other:
        cursor.execute("SELECT 1 / 0")
    assert mismatch(other.value) is None


def test_every_table_and_view_has_a_comment(warehouse: Connection) -> None:
    kinds = {name: (kind, comment) for name, kind, _, comment in catalog(warehouse)["tables"]}
    tables = {name for name, (kind, _) in kinds.items() if kind in "rv"} - {"schema_revision"}
    assert len(tables) > 20
    assert not [name for name in tables if not kinds[name][1]]


def test_the_page_of_the_docs_is_current(warehouse: Connection) -> None:
    page = ROOT / "docs/schema.md"
    assert page.read_text() == schema.markdown(warehouse), "write it again: python -m include.warehouse.schema"


def test_the_table_of_dead_letters_is_not_read_to_add_the_column_withheld(warehouse: Connection) -> None:
    relation = "SELECT 'millrace.dead_letter'::regclass::oid"
    with warehouse.cursor() as cursor:
        cursor.execute("ALTER TABLE millrace.dead_letter DROP COLUMN withheld")
        before = f"SELECT pg_stat_get_xact_numscans(({relation})), count(*) FROM pg_index WHERE indrelid = ({relation})"
        cursor.execute(before)
        expected = cursor.fetchone()
        for statement in migrations.statements("withheld_letters").split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute(before)
        assert cursor.fetchone() == expected
        cursor.execute("SELECT conrelid FROM pg_constraint WHERE conname = 'dead_letter_withheld_check'")
        assert cursor.fetchone() is not None
    warehouse.rollback()
