"""The audit itself: it accepts a correct landing, and finds every kind of error that a test plants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.faults.conftest import stage_of
from tests.faults.toolbox.audit import audit, offsets
from tests.faults.toolbox.events import READINGS
from tests.faults.toolbox.stage import Stage, World

PLANTED = {
    "a lost row": (
        "DELETE FROM {table} WHERE (kafka_partition, kafka_offset) = (0, 5)",
        "without the expected disposition",
    ),
    "a row twice": (
        "ALTER TABLE {table} DROP CONSTRAINT {stream}_pkey;"
        "INSERT INTO {table} SELECT * FROM {table} WHERE (kafka_partition, kafka_offset) = (0, 5)",
        "two dispositions",
    ),
    "a row that is a dead letter, too": (
        "INSERT INTO millrace.dead_letter (stream, kafka_incarnation, kafka_partition, kafka_offset, disposition,"
        " reason, appended_at) VALUES ('{stream}', 1, 0, 5, 'dead letter', 'planted', now())",
        "two dispositions",
    ),
    "a lost dead letter": (
        "DELETE FROM millrace.dead_letter WHERE kafka_partition = 1",
        "without the expected disposition",
    ),
    "a dead letter with other bytes": ("UPDATE millrace.dead_letter SET value = 'other'", "differ from their records"),
    "a dead letter without its headers": (
        "UPDATE millrace.dead_letter SET headers = NULL",
        "differ from their records",
    ),
    "another value in a row": (
        "UPDATE {table} SET amount = 7 WHERE (kafka_partition, kafka_offset) = (0, 5)",
        "differ from their records",
    ),
    "an aborted record's row": (
        "UPDATE {table} SET kafka_offset = {aborted} WHERE (kafka_partition, kafka_offset) = (2, 5)",
        "without a committed record",
    ),
    "a skipped offset": (
        "UPDATE millrace.position SET next_offset = next_offset + 1 WHERE partition = 0",
        "past the log's end",
    ),
    "a position that is too low": (
        "UPDATE millrace.position SET next_offset = next_offset - 1 WHERE partition = 0",
        "at or past the position",
    ),
    "a wrong count": (
        "UPDATE millrace.landing_ledger SET landed = landed + 1, skipped = skipped - 1 WHERE kafka_partition = 2",
        "the ledger counts",
    ),
    "a wrong checksum": ("UPDATE millrace.landing_ledger SET checksum = checksum + 1", "the checksum of"),
    "a lost ledger entry": ("DELETE FROM millrace.landing_ledger WHERE kafka_partition = 1", "the ledger ends at 0"),
    "a ledger entry twice": (
        "INSERT INTO millrace.landing_ledger SELECT stream, kafka_incarnation, kafka_partition, epoch + 9,"
        " first_offset, next_offset, landed, dead_letters, quarantined, skipped, no_records, checksum"
        " FROM millrace.landing_ledger",
        "the ledger jumps",
    ),
    "another topic's position": ("UPDATE millrace.position SET topic_id = 'other'", "positions of another topic"),
}


@pytest.fixture(scope="module")
def landed(world: World) -> Iterator[Stage]:
    """A correct landing with every disposition."""
    with stage_of(world, READINGS) as stage:
        stage.topic.events(600)
        stage.topic.send([b"{broken"], partition=1, expect="dead letter")
        stage.topic.send([None], partition=2)
        stage.topic.transaction(30, "abort", partition=2)
        stage.topic.transaction(30, "commit", partition=2)
        stage.land()
        yield stage


def test_a_correct_landing_is_accepted(landed: Stage) -> None:
    dispositions = landed.prove().dispositions
    assert dispositions == {"landed": 630, "dead letter": 1, "skipped": 1, "no record": 32}


@pytest.mark.parametrize(("statement", "finding"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_error_is_found(landed: Stage, statement: str, finding: str) -> None:
    log = landed.snapshot().logs[2]
    names = {
        "stream": landed.stream.name,
        "table": f"landing.{landed.stream.name}",
        "aborted": min(offsets(landed.world.broker.direct, landed.stream.topic, 2, log) - log.committed.keys()),
    }
    with closing(landed.world.database.superuser(landed.name)) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute(statement.format(**names))
        found = audit(connection, landed.stream, [landed.snapshot()]).wrong
    assert any(finding in wrong for wrong in found), found


def test_unread_records_are_found(landed: Stage) -> None:
    with closing(landed.world.database.superuser(landed.name)) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE millrace.position, millrace.landing_ledger, millrace.dead_letter")
            cursor.execute(f"TRUNCATE landing.{landed.stream.name}")
        findings = audit(connection, landed.stream, [landed.snapshot()])
    assert findings.unread == 632
