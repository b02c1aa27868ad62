"""The proof of a stream accepts a correct landing, and finds each error that a test plants."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from include.kafka import topics
from include.landing import proof, recovery
from include.landing.choice import Choice
from include.landing.drain import drain
from include.streams.definition import Stream
from tests.integration.landing import event, recreate, refusing, send, stream

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


@pytest.fixture
def landed(stream: Stream, warehouse: Connection) -> Stream:
    """Two windows with a record of every disposition."""
    refusing(warehouse, stream)
    for _ in range(2):
        good = [event(str(number), real=0.5, extra=[number], amount="1.50", number=number) for number in range(50)]
        send(stream, [*good, b"bad", None, event(number=-1)])
        drain(stream, "test")
    return stream


def test_a_correct_landing_is_proven(landed: Stream, warehouse: Connection) -> None:
    found = proof.prove(warehouse, landed)
    assert found.wrong == []
    assert found.compared == 106


PLANTED = {
    "a record that is counted as filtered": (
        "UPDATE millrace.landing_ledger SET landed = landed - 1, filtered = filtered + 1 WHERE first_offset = 53",
        "offsets 53 to 105: the definition filters 0 records without a row or dead letter, and the ledger counts 1",
    ),
    "a lost row": ("DELETE FROM landing.readings WHERE kafka_offset = 5", "records without a row or dead letter: 5"),
    "a row twice": (
        "ALTER TABLE landing.readings DROP CONSTRAINT readings_pkey;"
        "INSERT INTO landing.readings SELECT * FROM landing.readings WHERE kafka_offset = 5",
        "offsets that occur twice: 5",
    ),
    "another value": ("UPDATE landing.readings SET text = '?' WHERE kafka_offset = 60", "rows that differ.*: 60"),
    "another count": (
        "UPDATE millrace.landing_ledger SET landed = landed - 1, skipped = skipped + 1 WHERE first_offset = 53",
        "offsets 53 to 105: the tables hold 50 landed, not 49",
    ),
    "another checksum": ("UPDATE millrace.landing_ledger SET checksum = 1 WHERE first_offset = 0", "checksum is"),
    "a lost window": ("DELETE FROM millrace.landing_ledger WHERE first_offset = 0", "jumps from offset 0 to 53"),
    "a lost letter": ("DELETE FROM millrace.dead_letter WHERE kafka_offset = 50", "1 dead letter, not 2"),
    "another total": ("UPDATE millrace.landing_total SET landed = landed + 1", "landing_total differs from the ledger"),
    "a position ahead": ("UPDATE millrace.position SET next_offset = 200 WHERE partition = 0", "the position is 200"),
}


@pytest.mark.parametrize(("planted", "expected"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_error_is_found(landed: Stream, warehouse: Connection, planted: str, expected: str) -> None:
    warehouse.cursor().execute(planted)
    warehouse.commit()
    found = proof.prove(warehouse, landed)
    assert any(re.search(expected, wrong) for wrong in found.wrong), found.wrong


def test_an_accepted_gap_is_not_an_error(landed: Stream, warehouse: Connection) -> None:
    recreate(landed)
    send(landed, [event("new")])
    recovery.accept(warehouse, landed, Choice.RECREATED, "somebody")
    drain(landed, "test")
    found = proof.prove(warehouse, landed)
    assert found.wrong == []
    assert found.compared == 1


def test_the_remaining_records_of_a_window_are_compared(landed: Stream, warehouse: Connection) -> None:
    topics.drop_below(landed.topic, {0: 70})
    found = proof.prove(warehouse, landed)
    assert (found.wrong, found.compared) == ([], 106 - 70)
    warehouse.cursor().execute("UPDATE landing.readings SET text = '?' WHERE kafka_offset IN (60, 80)")
    warehouse.commit()
    (wrong,) = proof.prove(warehouse, landed).wrong
    assert re.search("rows that differ.*: 80$", wrong)
