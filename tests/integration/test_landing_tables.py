"""A user's changes of a stream's table stay as they are, and those that prevent landing are reported."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
import pytest

from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import client
from include.landing import batch, locks, maintenance, partitions, placement, problems, proof, replay, spans, table
from include.landing.drain import drain
from include.landing.spans import Span
from include.streams.definition import Instant, Stream
from include.warehouse.connection import connect
from tests.errors import raises
from tests.integration.landing import (
    NOW,
    Grown,
    Reading,
    Shrunk,
    event,
    kept_aside,
    landed,
    one_disposition_each,
    rows,
    send,
    stream,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

DAY = timedelta(days=1)
OLD = NOW - 5 * DAY


def execute(connection: Connection, statement: str) -> None:
    """Executes a statement and commits."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.commit()


def proven(connection: Connection, stream: Stream) -> None:
    found = proof.prove(connection, stream)
    assert not found.wrong
    one_disposition_each(connection, stream)


def replayed(connection: Connection, stream: Stream) -> None:
    replay.replay(connection, stream, replay.Wanted(), "test")


def partition_of(stream: Stream, moment: datetime) -> str:
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return spans.name_of(stream, Span(start, start + DAY))


def attached(connection: Connection) -> list[str]:
    found = rows(
        connection,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'landing.readings'::regclass ORDER BY 1",
    )
    return [name.removeprefix("landing.") for (name,) in found]


@contextmanager
def reading(query: str = "SELECT count(*) FROM landing.readings", name: str = "report") -> Iterator[Connection]:
    """A session that has read the table and keeps its transaction open."""
    with closing(connect(name)) as connection:
        with connection.cursor() as cursor:
            cursor.execute(query)
        yield connection


# What a user may add to the table, each with a query that must stay true.
ADDED = {
    "a column with a default": (
        "ALTER TABLE landing.readings ADD defaulted text NOT NULL DEFAULT 'x'",
        "SELECT count(*) = 2 FROM landing.readings WHERE defaulted = 'x'",
    ),
    "an identity": (
        "ALTER TABLE landing.readings ADD counted bigint GENERATED ALWAYS AS IDENTITY",
        "SELECT count(DISTINCT counted) = 2 FROM landing.readings",
    ),
    "a generated column": (
        "ALTER TABLE landing.readings ADD stored bigint NOT NULL GENERATED ALWAYS AS (number + 1) STORED",
        "SELECT count(*) = 2 FROM landing.readings WHERE stored = number + 1",
    ),
    "a virtual column": (
        "ALTER TABLE landing.readings ADD virtual bigint GENERATED ALWAYS AS (number + 1) VIRTUAL",
        "SELECT count(*) = 2 FROM landing.readings WHERE virtual = number + 1",
    ),
    "a serial": (
        "ALTER TABLE landing.readings ADD serial bigserial",
        "SELECT count(DISTINCT serial) = 2 FROM landing.readings",
    ),
    "NOT NULL": (
        "ALTER TABLE landing.readings ALTER extra SET NOT NULL",
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'landing.readings'::regclass AND attname = 'extra'",
    ),
    "NOT NULL of a column of one's own": (
        "SELECT",
        "SELECT count(*) = 4 FROM pg_attribute WHERE attrelid = 'landing.readings'::regclass "
        "AND attname IN ('defaulted', 'counted', 'stored', 'serial') AND attnotnull",
    ),
    "a view": ("CREATE VIEW seen AS SELECT * FROM landing.readings", "SELECT count(*) = 2 FROM seen"),
    "a view grouped by the key": (
        "CREATE VIEW grouped AS SELECT text FROM landing.readings "
        "GROUP BY kafka_incarnation, kafka_partition, kafka_offset, ts",
        "SELECT count(*) = 2 FROM grouped",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM landing.readings",
        "SELECT to_regclass('kept') IS NOT NULL",
    ),
    "an index": (
        "CREATE INDEX plain ON landing.readings (text)",
        "SELECT count(*) >= 2 FROM pg_inherits WHERE inhparent = 'landing.plain'::regclass",
    ),
    "an index of the table alone": ("CREATE INDEX alone ON ONLY landing.readings (text)", "SELECT true"),
    "a unique index": (
        "CREATE UNIQUE INDEX sole ON landing.readings (text, ts)",
        "SELECT count(*) >= 2 FROM pg_inherits WHERE inhparent = 'landing.sole'::regclass",
    ),
    "a check": (
        "ALTER TABLE landing.readings ADD CONSTRAINT checked CHECK (number >= 0)",
        "SELECT count(*) > 2 FROM pg_constraint WHERE conname = 'checked'",
    ),
    "a check that is not enforced": (
        "ALTER TABLE landing.readings ADD CONSTRAINT unenforced CHECK (number < 0) NOT ENFORCED",
        "SELECT count(*) > 2 FROM pg_constraint WHERE conname = 'unenforced'",
    ),
    "a check that is not valid": (
        "ALTER TABLE landing.readings ADD CONSTRAINT unchecked CHECK (number >= 0) NOT VALID",
        "SELECT count(*) > 2 FROM pg_constraint WHERE conname = 'unchecked'",
    ),
    "a foreign key": (
        "CREATE TABLE known (number bigint PRIMARY KEY); INSERT INTO known VALUES (7);"
        "ALTER TABLE landing.readings ADD CONSTRAINT refers FOREIGN KEY (number) REFERENCES known",
        "SELECT count(*) > 2 FROM pg_constraint WHERE contype = 'f' AND confrelid = 'known'::regclass",
    ),
    "a trigger": (
        "CREATE FUNCTION seven() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.number = 7; RETURN NEW; END';"
        "CREATE TRIGGER seven BEFORE INSERT ON landing.readings FOR EACH ROW EXECUTE FUNCTION seven()",
        "SELECT count(*) = 2 FROM landing.readings WHERE number = 7",
    ),
    "a rule": (
        "CREATE TABLE log (at timestamptz);"
        "CREATE RULE logged AS ON DELETE TO landing.readings DO ALSO INSERT INTO log VALUES (now())",
        "SELECT count(*) = 1 FROM pg_rules WHERE rulename = 'logged'",
    ),
    "row-level security": (
        "ALTER TABLE landing.readings ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY hidden ON landing.readings USING (number > 0)",
        "SELECT relrowsecurity FROM pg_class WHERE oid = 'landing.readings'::regclass",
    ),
    "a grant": (
        "GRANT SELECT ON landing.readings TO PUBLIC",
        "SELECT relacl::text LIKE '%%=r/%%' FROM pg_class WHERE oid = 'landing.readings'::regclass",
    ),
    "comments": (
        "COMMENT ON TABLE landing.readings IS 'mine'; COMMENT ON COLUMN landing.readings.text IS 'mine'",
        "SELECT obj_description('landing.readings'::regclass) = 'mine' AND col_description(attrelid, attnum) = 'mine' "
        "FROM pg_attribute WHERE attrelid = 'landing.readings'::regclass AND attname = 'text'",
    ),
    "statistics": (
        "CREATE STATISTICS extra ON text, number FROM landing.readings",
        "SELECT count(*) >= 1 FROM pg_statistic_ext",
    ),
    "storage": (
        "ALTER TABLE landing.readings ALTER text SET STORAGE EXTERNAL",
        "SELECT attstorage = 'e' FROM pg_attribute WHERE attrelid = 'landing.readings'::regclass AND attname = 'text'",
    ),
    "a publication": (
        "CREATE PUBLICATION published FOR TABLE landing.readings",
        "SELECT count(*) = 1 FROM pg_publication_rel",
    ),
    "a table that refers to it": (
        "CREATE TABLE referring (i smallint, p integer, o bigint, t timestamptz, "
        "FOREIGN KEY (i, p, o, t) REFERENCES landing.readings)",
        "SELECT count(*) >= 1 FROM pg_constraint WHERE conrelid = 'referring'::regclass AND contype = 'f'",
    ),
}


def test_additions_of_a_user_stay_and_do_not_prevent_landing(stream: Stream, warehouse: Connection) -> None:
    """Partitions are created, the definition grows, an old partition is dropped, and all records are replayed."""
    table.bring_up_to_date(warehouse, stream)
    for statement, _ in ADDED.values():
        execute(warehouse, statement)
    send(stream, [event("new", extra=1), event("old", extra=1, ts=OLD)])
    assert drain(stream, "test").landed == 2
    grown = replace(stream, event=Grown)
    send(grown, [event("more", more="x", ts=OLD - DAY, extra=1)])
    assert drain(grown, "test").landed == 1
    oldest = partition_of(stream, OLD - DAY)
    assert maintenance.drop_until(warehouse, grown, OLD.replace(hour=0, minute=0, second=0)) == [oldest]

    def stays() -> None:
        holds = {what: rows(warehouse, holds) for what, (_, holds) in ADDED.items()}
        assert not [what for what, found in holds.items() if found != [(True,)]]

    stays()
    replay.replay(warehouse, grown, replay.Wanted(next=2, partitions=[0]), "test")
    maintenance.maintain(warehouse, grown)
    stays()
    assert [text for _, _, text in landed(warehouse)] == ["new", "old"]


def test_a_users_column_that_no_field_fills_is_reported_and_stays(stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(warehouse, "ALTER TABLE landing.readings ADD mine text NOT NULL")
    send(stream, [event()])
    with raises(Code.COLUMN_CONFLICT, "landing.readings.mine", "SET DEFAULT", kind=NonRetryableError):
        drain(stream, "test")
    execute(warehouse, "ALTER TABLE landing.readings ALTER mine SET DEFAULT ''")
    assert drain(stream, "test").landed == 1
    assert rows(warehouse, "SELECT mine FROM landing.readings") == [("",)]


def test_null_is_refused_only_where_a_user_set_not_null(stream: Stream, warehouse: Connection) -> None:
    """The definition can drop its own NOT NULL, but not a user's."""
    send(stream, [event(real=0.5)])
    drain(stream, "test")
    execute(warehouse, "ALTER TABLE landing.readings ALTER real SET NOT NULL")
    shrunk = replace(stream, event=Shrunk)
    with raises(Code.COLUMN_CONFLICT, "landing.readings.real", kind=NonRetryableError):
        drain(shrunk, "test")
    send(stream, [event("null"), event("one", real=1.0)])
    assert drain(stream, "test").landed == 1
    assert "null" in kept_aside(warehouse)[1][1]
    execute(warehouse, "ALTER TABLE landing.readings ALTER real DROP NOT NULL")
    send(stream, [event("unread", number=7)])
    assert drain(shrunk, "test").landed == 1
    proven(warehouse, shrunk)


def test_a_generated_column_with_a_fields_name_is_reported(stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(warehouse, "ALTER TABLE landing.readings ADD more text GENERATED ALWAYS AS (text || '!') STORED")
    send(stream, [event()])
    with raises(Code.COLUMN_CONFLICT, "event.more", "landing.readings.more", "generated", kind=NonRetryableError):
        drain(replace(stream, event=Grown), "test")
    assert drain(stream, "test").landed == 1


class Described(Reading):
    more: Annotated[str | None, msgspec.Meta(description="The definition's")] = None


def test_the_definitions_description_replaces_a_users_comment(stream: Stream, warehouse: Connection) -> None:
    described = replace(stream, event=Described)
    table.bring_up_to_date(warehouse, described)
    execute(warehouse, "COMMENT ON COLUMN landing.readings.more IS 'mine'")
    table.bring_up_to_date(warehouse, described)
    assert rows(warehouse, "SELECT col_description('landing.readings'::regclass, 10)") == [("The definition's",)]


# Objects that can depend on a partition, by their names in the error.
DEPENDENTS = {
    "view public.mine": "CREATE VIEW mine AS SELECT * FROM landing.{}",
    "materialized view public.mine": "CREATE MATERIALIZED VIEW mine AS SELECT count(*) FROM landing.{}",
    "function mine(landing.{})": "CREATE FUNCTION mine(landing.{}) RETURNS text LANGUAGE sql RETURN ($1).text",
    "constraint mine_i_p_o_t_fkey on table mine": "CREATE TABLE mine (i smallint, p integer, o bigint, t timestamptz, "
    "FOREIGN KEY (i, p, o, t) REFERENCES landing.{})",
    "column whole of table mine": "CREATE TABLE mine (whole landing.{})",
    "policy": "CREATE TABLE mine (text text); "
    "CREATE POLICY mine ON mine USING (EXISTS (SELECT FROM landing.{} AS old WHERE old.text = mine.text))",
}


@pytest.mark.parametrize("what", DEPENDENTS)
def test_a_partition_with_dependents_stays_and_the_others_are_dropped(
    stream: Stream, warehouse: Connection, what: str
) -> None:
    send(stream, [event(f"{days}", ts=NOW - days * DAY) for days in (6, 5, 4, 0)])
    drain(stream, "test")
    before, old, _, today = (partition_of(stream, NOW - days * DAY) for days in (6, 5, 4, 0))
    execute(warehouse, DEPENDENTS[what].format(old))
    for _ in range(2):
        with raises(Code.PARTITION_IN_USE, f"landing.{old}", what.format(old), kind=NonRetryableError):
            maintenance.drop_until(warehouse, stream, NOW - 3 * DAY)
        assert attached(warehouse) == [old, today]
    assert rows(warehouse, "SELECT to_regclass(%s)", f"landing.{before}") == [(None,)]
    send(stream, [event("late", ts=NOW - 5 * DAY)])
    assert drain(stream, "test").landed == 1
    # A user detaches it to keep it: it is not marked to be dropped.
    execute(warehouse, f"ALTER TABLE landing.readings DETACH PARTITION landing.{old}")
    maintenance.maintain(warehouse, stream)
    assert rows(warehouse, f"SELECT count(*) FROM landing.{old}") == [(2,)]


def test_a_detached_partition_that_cannot_be_dropped_is_attached_again(stream: Stream, warehouse: Connection) -> None:
    """Earlier releases left such tables, and so does a view that is created between the two steps."""
    send(stream, [event("old", ts=OLD), event("new")])
    drain(stream, "test")
    old = partition_of(stream, OLD)

    def detached() -> None:
        execute(warehouse, f"COMMENT ON TABLE landing.{old} IS '{partitions.TO_BE_DROPPED}'")
        execute(warehouse, f"ALTER TABLE landing.readings DETACH PARTITION landing.{old}")

    execute(warehouse, f"CREATE VIEW mine AS SELECT * FROM landing.{old}")
    detached()
    send(stream, [event("late", ts=OLD)])
    assert drain(stream, "test").landed == 1
    assert old in attached(warehouse)
    detached()
    with raises(Code.PARTITION_IN_USE, f"landing.{old}", "view public.mine", kind=NonRetryableError):
        maintenance.maintain(warehouse, stream)
    assert old in attached(warehouse)
    assert [text for _, _, text in landed(warehouse)] == ["old", "new", "late"]
    execute(warehouse, "DROP VIEW mine")
    assert maintenance.drop_until(warehouse, stream, OLD + DAY) == [old]


def test_referenced_rows_keep_their_partition_and_refuse_a_replay(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("old", ts=OLD), event("older", ts=OLD - DAY), event("new")])
    drain(stream, "test")
    old = partition_of(stream, OLD)
    execute(
        warehouse,
        "CREATE TABLE mine (i smallint, p integer, o bigint, t timestamptz, "
        "CONSTRAINT refers FOREIGN KEY (i, p, o, t) REFERENCES landing.readings);"
        "INSERT INTO mine SELECT kafka_incarnation, kafka_partition, kafka_offset, ts FROM landing.readings "
        "WHERE text = 'old'",
    )
    with raises(Code.PARTITION_IN_USE, f"landing.{old}", "refers", kind=NonRetryableError):
        maintenance.drop_until(warehouse, stream, OLD + DAY)
    assert attached(warehouse) == [old, partition_of(stream, NOW)]
    assert rows(warehouse, "SELECT obj_description(%s::regclass)", f"landing.{old}") == [(None,)]
    with raises(Code.STATEMENT_REFUSED, "refers", kind=NonRetryableError):
        replayed(warehouse, stream)
    assert [text for _, _, text in landed(warehouse)] == ["old", "new"]


def test_a_users_partition_takes_rows_and_is_never_dropped(stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(
        warehouse,
        "CREATE SCHEMA archive; CREATE TABLE archive.history (LIKE landing.readings INCLUDING ALL);"
        "ALTER TABLE landing.readings ATTACH PARTITION archive.history "
        f"FOR VALUES FROM (MINVALUE) TO ('{NOW:%F} 00:00+00');"
        "CREATE TABLE landing.year PARTITION OF landing.readings "
        "FOR VALUES FROM ('2100-01-01 00:00+00') TO ('infinity')",
    )
    send(stream, [event("old", ts=OLD), event("new")])
    assert drain(stream, "test").landed == 2
    assert rows(warehouse, "SELECT text FROM archive.history") == [("old",)]
    maintenance.maintain(warehouse, replace(stream, keep="8 days"))
    assert maintenance.drop_until(warehouse, stream, datetime(9999, 1, 1, tzinfo=UTC))
    assert attached(warehouse) == ["archive.history", "year"]
    replayed(warehouse, stream)
    proven(warehouse, stream)


def test_a_default_partition_prevents_only_new_partitions(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("today"), event("old", ts=OLD)])
    drain(stream, "test")
    execute(warehouse, "CREATE TABLE landing.catchall PARTITION OF landing.readings DEFAULT")
    send(stream, [event("again")])
    assert drain(stream, "test").landed == 1
    with raises(Code.DEFAULT_PARTITION, "landing.catchall", "DETACH PARTITION", kind=NonRetryableError):
        maintenance.maintain(warehouse, stream)
    assert maintenance.drop_until(warehouse, stream, OLD + DAY) == [partition_of(stream, OLD)]
    send(stream, [event("before", ts=NOW - 3 * DAY)])
    with raises(Code.DEFAULT_PARTITION, "landing.catchall", kind=NonRetryableError):
        drain(stream, "test")
    execute(warehouse, "ALTER TABLE landing.readings DETACH PARTITION landing.catchall")
    assert drain(stream, "test").landed == 1


@pytest.mark.parametrize("how", ["RENAME TO mine", "SET SCHEMA public"])
def test_a_renamed_table_is_reported(stream: Stream, warehouse: Connection, how: str) -> None:
    send(stream, [event("old")])
    drain(stream, "test")
    execute(warehouse, f"ALTER TABLE landing.readings {how}")
    other = "landing.mine" if "mine" in how else "public.readings"
    send(stream, [event("new")])
    with raises(Code.NAME_TAKEN, other, kind=NonRetryableError):
        drain(stream, "test")
    assert rows(warehouse, "SELECT to_regclass('landing.readings')") == [(None,)]
    execute(
        warehouse,
        f"ALTER TABLE {other} " + ("RENAME TO readings" if "mine" in how else "SET SCHEMA landing"),
    )
    assert drain(stream, "test").landed == 1
    proven(warehouse, stream)


@pytest.mark.parametrize(
    ("statement", "code", "named"),
    [
        ("CREATE VIEW landing.readings AS SELECT now() AS ts", Code.NAME_TAKEN, "view"),
        ("CREATE TABLE landing.readings (ts timestamptz)", Code.NAME_TAKEN, "table without partitions"),
        ("CREATE SEQUENCE landing.readings", Code.NAME_TAKEN, "sequence"),
        (
            "CREATE TABLE landing.readings (ts timestamptz, n int) PARTITION BY LIST (n)",
            Code.TABLE_INCOMPATIBLE,
            "LIST",
        ),
    ],
)
def test_a_relation_with_the_tables_name_is_reported(
    stream: Stream, warehouse: Connection, statement: str, code: Code, named: str
) -> None:
    execute(warehouse, statement)
    send(stream, [event()])
    with raises(code, "landing.readings", named, kind=NonRetryableError):
        drain(stream, "test")


DISCARDING = (
    "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    "CREATE TRIGGER mine BEFORE {} ON landing.readings FOR EACH ROW EXECUTE FUNCTION mine()"
)


def test_rows_that_a_trigger_discards_do_not_count_as_landed(stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(warehouse, DISCARDING.format("INSERT"))
    send(stream, [event()] * 3)
    with raises(Code.BLOCKED_BY_TRIGGER, "3 of 3 rows", "trigger mine", kind=NonRetryableError):
        drain(stream, "test")
    execute(warehouse, "DROP TRIGGER mine ON landing.readings")
    assert drain(stream, "test").landed == 3
    proven(warehouse, stream)


@pytest.mark.parametrize(
    "keeping", [DISCARDING.format("DELETE"), "CREATE RULE mine AS ON DELETE TO landing.readings DO INSTEAD NOTHING"]
)
def test_rows_that_cannot_be_deleted_refuse_a_replay(stream: Stream, warehouse: Connection, keeping: str) -> None:
    send(stream, [event()] * 3)
    drain(stream, "test")
    execute(warehouse, keeping)
    with raises(Code.BLOCKED_BY_TRIGGER, "mine", kind=NonRetryableError):
        replayed(warehouse, stream)
    assert len(landed(warehouse)) == 3
    proven(warehouse, stream)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER TABLE landing.readings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "row-level security"),
        ("REVOKE INSERT ON landing.readings FROM CURRENT_USER", "permission denied"),
    ],
)
def test_a_missing_permission_is_reported(stream: Stream, warehouse: Connection, statement: str, reason: str) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(warehouse, statement)
    send(stream, [event()])
    with raises(Code.STATEMENT_REFUSED, reason, kind=NonRetryableError):
        drain(stream, "test")


def test_an_open_reader_delays_only_the_new_column(
    stream: Stream, warehouse: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The values of a new field land later, all others immediately. No other session waits for the change."""
    send(stream, [event("before")])
    drain(stream, "test")
    grown = replace(stream, event=Grown, window="1 minute")
    with reading():
        send(grown, [event("without"), event("with", more="a"), event("none", more=None), event("also", more="b")])
        waits: list[float] = []
        ended = threading.Event()
        other = threading.Thread(target=read_again_and_again, args=(waits, ended))
        other.start()
        began = time.monotonic()
        assert drain(grown, "test").landed == 4
        took = time.monotonic() - began
        ended.set()
        other.join()
        assert "pid" in caplog.text and "report, user warehouse" in caplog.text and "count(*)" in caplog.text
        assert took < 15
        assert max(waits) < 2, "a reader waited behind the change"
        assert rows(
            warehouse, "SELECT kafka_partition, first_offset, next_offset, columns FROM millrace.landing_unfilled"
        ) == [(0, 2, 5, ["more"])]
        whats = [problem.what for problem in problems.of(warehouse, grown)]
        assert any("add the column 'more' (text) to landing.readings needs a lock" in what for what in whats)
        assert any("pid" in what and "report" in what for what in whats)
        assert any("offsets 2 to 4" in what and "more" in what for what in whats)
        with raises(Code.LOCK_TIMEOUT, "report, user warehouse"):
            maintenance.maintain(warehouse, grown)
        assert not proof.prove(warehouse, grown).wrong
    send(grown, [event("after", more="c")])
    assert drain(grown, "test").landed == 1
    assert rows(warehouse, "SELECT text, more FROM landing.readings WHERE more IS NOT NULL") == [("after", "c")]
    assert not proof.prove(warehouse, grown).wrong
    maintenance.maintain(warehouse, grown)
    found = rows(warehouse, "SELECT text, more FROM landing.readings ORDER BY kafka_offset")
    assert found == [("before", None), ("without", None), ("with", "a"), ("none", None), ("also", "b"), ("after", "c")]
    assert problems.of(warehouse, grown) == []
    proven(warehouse, grown)


def read_again_and_again(waits: list[float], ended: threading.Event) -> None:
    with closing(connect("another")) as connection:
        while not ended.wait(0.02):
            began = time.monotonic()
            rows(connection, "SELECT count(*) FROM landing.readings")
            waits.append(time.monotonic() - began)


class Optional(msgspec.Struct):
    ts: Instant
    text: str | None = None
    number: int = 0


def test_null_waits_for_the_lock_and_other_values_land(stream: Stream, warehouse: Connection) -> None:
    """A field allows None now. No record becomes a dead letter because the table does not allow null yet."""
    send(stream, [event("before")])
    drain(stream, "test")
    optional = replace(stream, event=Optional, window="4 seconds")
    null = msgspec.json.encode({"ts": NOW})
    with reading():
        send(stream, [event("after")])
        assert drain(optional, "test").landed == 1
        send(stream, [null])
        with raises(Code.LOCK_TIMEOUT, "report, user warehouse"):
            drain(optional, "test")
        assert not kept_aside(warehouse)
        assert "report" in problems.of(warehouse, optional)[0].what
    assert drain(optional, "test").landed == 1
    proven(warehouse, optional)


def test_values_whose_records_expired_are_reported_until_a_replay(stream: Stream, warehouse: Connection) -> None:
    from confluent_kafka import TopicPartition

    send(stream, [event("before")])
    drain(stream, "test")
    grown = replace(stream, event=Grown)
    with reading():
        send(grown, [event("gone", more="a"), event("there", more="b")])
        drain(grown, "test")
    brokers = client.admin()
    for removed in brokers.delete_records([TopicPartition(stream.topic, 0, 2)]).values():
        removed.result()
    for _ in range(2):
        with raises(Code.VALUES_EXPIRED, "partition 0, offset 1, 'more'", "replay readings", kind=NonRetryableError):
            maintenance.maintain(warehouse, grown)
    found = rows(warehouse, "SELECT text, more FROM landing.readings ORDER BY kafka_offset")
    assert found == [("before", None), ("gone", None), ("there", "b")]
    replayed(warehouse, grown)
    maintenance.maintain(warehouse, grown)
    assert problems.of(warehouse, grown) == []


def test_problems_report_a_failing_drain_with_time_and_reason(stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    execute(warehouse, "REVOKE INSERT ON landing.readings FROM CURRENT_USER")
    send(stream, [event()])
    for _ in range(2):
        with raises(Code.STATEMENT_REFUSED, kind=NonRetryableError):
            drain(stream, "test")
    (problem,) = problems.of(warehouse, stream)
    assert "land__readings, task drain 0" in problem.what and f"{datetime.now(UTC):%Y-%m-%d}" in problem.what
    assert "(2 times)" in problem.what and "permission denied for table readings" in problem.what
    execute(warehouse, "GRANT INSERT ON landing.readings TO CURRENT_USER")
    assert drain(stream, "test").landed == 1
    assert problems.of(warehouse, stream) == []


def test_a_locked_table_is_reported_without_a_long_wait(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    lock = "LOCK TABLE landing.readings IN ACCESS EXCLUSIVE MODE"
    with reading(lock, "a forgotten session"):
        execute(warehouse, "SET statement_timeout = '10s'")
        (problem,) = problems.of(warehouse, stream)
        assert re.search(r"which another session holds: pid \d+ \(a forgotten session", problem.what)
        with raises(Code.LOCK_TIMEOUT, "pid ", "(a forgotten session", kind=locks.Locked):
            maintenance.maintain(warehouse, stream)
        send(stream, [event()])
        with raises(Code.LOCK_TIMEOUT, "pid ", "(a forgotten session"):
            drain(replace(stream, window="3 seconds"), "test")
    assert drain(stream, "test").landed == 1
    assert problems.of(warehouse, stream) == []


def test_a_reader_of_a_partition_delays_only_its_retention(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "DETACH_TIMEOUT_MS", 300)
    send(stream, [event("old", ts=OLD), event("new")])
    drain(stream, "test")
    with reading():
        with raises(Code.LOCK_TIMEOUT, partition_of(stream, OLD), "report, user warehouse"):
            maintenance.drop_until(warehouse, stream, OLD + DAY)
        assert any("detachment is unfinished" in problem.what for problem in problems.of(warehouse, stream))
        send(stream, [event("more"), event("before", ts=OLD - DAY)])
        assert drain(stream, "test").landed == 2
    dropped = [partition_of(stream, OLD), partition_of(stream, OLD - DAY)]
    assert maintenance.drop_until(warehouse, stream, OLD + DAY) == dropped
    assert attached(warehouse) == [partition_of(stream, NOW)]


def test_many_partitions_land_and_are_replayed_and_proven_with_few_locks(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch has an event for each of 300 hours. No transaction locks all of their partitions."""
    for module, name in (
        (partitions, "PARTITIONS_PER_TRANSACTION"),
        (batch, "MAX_SPANS"),
        (placement, "PARTITIONS_PER_QUERY"),
    ):
        monkeypatch.setattr(module, name, 40)
    stream = replace(stream, partition="1 hour", late="400 days", keep="500 days", window="5 minutes")
    hour = NOW.replace(minute=30)
    hours = 300
    send(stream, [event(str(number), ts=hour - timedelta(hours=number)) for number in range(hours)])
    table.bring_up_to_date(warehouse, stream)
    counts: list[int] = []
    ended = threading.Event()
    watching = threading.Thread(target=count_locks, args=(counts, ended))
    watching.start()
    try:
        assert drain(stream, "test").landed == hours
        replayed(warehouse, stream)
        lost = hour - timedelta(hours=100)
        execute(warehouse, f"DELETE FROM landing.readings WHERE text = '100' AND ts = '{lost.isoformat()}'")
        assert proof.prove(warehouse, replace(stream, event=Grown)).wrong
        replay.replay(warehouse, stream, replay.Wanted(partitions=[0], first=90, next=110), "test")
        found = proof.prove(warehouse, stream)
    finally:
        ended.set()
        watching.join()
    assert (found.wrong, found.compared) == ([], hours)
    assert rows(warehouse, "SELECT count(*), count(DISTINCT text) FROM landing.readings") == [(hours, hours)]
    assert max(counts) < 500


def count_locks(counts: list[int], ended: threading.Event) -> None:
    """Counts the locks in this test's database, repeatedly."""
    with closing(connect("watching")) as connection:
        while not ended.wait(0.05):
            query = (
                "SELECT count(*) FROM pg_locks JOIN pg_database ON database = oid WHERE datname = current_database()"
            )
            counts += rows(connection, query)[0]
