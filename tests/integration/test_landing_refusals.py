"""Rows that PostgreSQL refuses become dead letters, and a retry lands them once the cause is fixed."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from include.landing import retry, table
from include.landing.copy import Rows
from include.landing.drain import drain
from include.streams.definition import Stream
from include.warehouse.connection import connect
from tests.integration.landing import (
    event,
    kept_aside,
    landed,
    one_disposition_each,
    refusing,
    rows,
    send,
    stream,
)
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


def test_refused_rows_become_dead_letters_and_the_others_land(stream: Stream, warehouse: Connection) -> None:
    refusing(warehouse, stream)
    numbers = [-1, 0, 1, -2, -3, 2, b"bad", 3, -4]
    send(stream, [number if isinstance(number, bytes) else event(number=number) for number in numbers])
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (4, 5)
    letters = rows(warehouse, "SELECT kafka_offset, sqlstate, reason, value FROM millrace.dead_letter ORDER BY 1")
    assert [(offset, state) for offset, state, _, _ in letters] == [
        (0, "23514"),
        (3, "23514"),
        (4, "23514"),
        (6, None),
        (8, "23514"),
    ]
    assert "mine" in letters[0][2]
    assert bytes(letters[0][3]) == event(number=-1)
    one_disposition_each(warehouse, stream)


TRIGGER = """
    CREATE FUNCTION landing.positive() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN NEW.number = abs(NEW.number); RETURN NEW; END';
    CREATE TRIGGER positive BEFORE INSERT ON landing.readings FOR EACH ROW EXECUTE FUNCTION landing.positive();
"""


@pytest.mark.parametrize("also", ["", TRIGGER], ids=["screened", "searched"])
def test_refused_rows_are_found_if_no_error_names_them(stream: Stream, warehouse: Connection, also: str) -> None:
    """A foreign key is checked after the COPY, and a duplicate is refused only together with the other row."""
    table.bring_up_to_date(warehouse, stream)
    warehouse.cursor().execute(
        "CREATE TABLE landing.known (number bigint PRIMARY KEY); "
        "INSERT INTO landing.known SELECT generate_series(0, 9);"
        "ALTER TABLE landing.readings ADD FOREIGN KEY (number) REFERENCES landing.known;"
        "CREATE UNIQUE INDEX ON landing.readings (text, ts);" + also
    )
    warehouse.commit()
    send(stream, [event(str(number), number=number) for number in range(12)] + [event("1", number=1)])
    assert drain(stream, "test").landed == 10
    states = rows(
        warehouse, "SELECT kafka_offset, sqlstate, reason ~ 'constraint' FROM millrace.dead_letter ORDER BY 1"
    )
    assert states == [(10, "23503", True), (11, "23503", True), (12, "23505", True)]
    one_disposition_each(warehouse, stream)


def test_rows_that_a_trigger_corrects_are_not_refused(stream: Stream, warehouse: Connection) -> None:
    """Constraints are applied to the row that the trigger returns."""
    refusing(warehouse, stream, "number >= 0 AND number <> 7")
    warehouse.cursor().execute(TRIGGER)
    warehouse.commit()
    send(stream, [event(number=number) for number in (1, -2, 7, 3, -7)])
    assert (drain(stream, "test").landed, list(kept_aside(warehouse))) == (3, [2, 4])
    one_disposition_each(warehouse, stream)


def test_one_percent_of_refused_rows_costs_a_few_copies(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused rows of a batch are found together, and not one by one."""
    refusing(warehouse, stream)
    copies: list[str] = []
    send_rows = Rows.send

    def count(self: Rows, connection: Connection, table: str, *arguments: Any, **options: Any) -> None:
        copies.append(table)
        send_rows(self, connection, table, *arguments, **options)

    monkeypatch.setattr(Rows, "send", count)
    send(stream, (event(number=number % 100 - 1) for number in range(20_000)))
    drained = drain(replace(stream, quiet="5 seconds"), "test")
    assert (drained.landed, drained.dead_letters) == (19_800, 200)
    # The refused COPY, the one that screens the rows, the accepted one, and the dead letters'.
    assert len(copies) <= 4 * drained.batches, copies
    one_disposition_each(warehouse, stream)


def test_dead_letters_land_once_after_the_cause_is_fixed(stream: Stream, warehouse: Connection) -> None:
    """Even with several retries at the same time."""
    refusing(warehouse, stream)
    send(stream, [event("good"), b"bad", *(event(str(number), number=-1) for number in range(50))])
    assert drain(stream, "test").dead_letters == 51
    assert retry.retry(warehouse, stream) == (0, 51, 0)
    warehouse.cursor().execute("ALTER TABLE landing.readings DROP CONSTRAINT mine")
    warehouse.commit()
    landed_by: list[int] = []

    def run() -> None:
        with closing(connect("retry")) as own:
            landed_by.append(retry.retry(own, stream)[0])

    retries = [threading.Thread(target=run) for _ in range(3)]
    for each in retries:
        each.start()
    for each in retries:
        each.join()
    assert sum(landed_by) == 50
    assert [offset for _, offset, _ in landed(warehouse)] == [0, *range(2, 52)]
    assert list(kept_aside(warehouse)) == [1]
    one_disposition_each(warehouse, stream)


@pytest.mark.parametrize("moment", ["decoded", "committed"])
def test_a_killed_retry_of_dead_letters_continues(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    refusing(warehouse, stream)
    send(stream, [event("good"), b"bad", *(event("x" * 1000, number=-1) for _ in range(500))])
    assert drain(stream, "test").dead_letters == 501
    warehouse.cursor().execute("ALTER TABLE landing.readings DROP CONSTRAINT mine")
    warehouse.commit()
    # Batches are bounded by their bytes, too.
    monkeypatch.setattr(retry, "LETTERS_PER_TRANSACTION", 200)
    monkeypatch.setattr(retry, "MAX_BYTES", 100_000)
    child = os.fork()
    if not child:
        # Collecting a Kafka client, whose threads are not in this process, would crash it.
        gc.disable()
        killing = itertools.count(1)

        def kill_at_the_third(*_: Any) -> Any:
            if next(killing) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        if moment == "decoded":
            land = retry.refusals.accepts
            retry.refusals.accepts = lambda *given: (land(*given), kill_at_the_third())[0]
        retry.retry(connect("retry"), stream, kill_at_the_third if moment == "committed" else lambda *_: None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    batches = 2 if moment == "decoded" else 3
    before = len(landed(warehouse)) - 1
    assert (batches - 1) * 90 < before < batches * 100
    warehouse.rollback()
    reports: list[tuple[int, ...]] = []
    wait_for_release(warehouse)
    assert retry.retry(warehouse, stream, lambda *counts: reports.append(counts)) == (500 - before, 1, 0)
    assert len(reports) >= 3 and reports[-1] == (500 - before, 1, 0)
    assert len(landed(warehouse)) == 501
    assert list(kept_aside(warehouse)) == [1]
    one_disposition_each(warehouse, stream)


def wait_for_release(warehouse: Connection) -> None:
    """Waits until the server has noticed that the process was killed, and has released its locks."""
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'retry' AND datname = current_database()"
    until("the killed retry's session has ended", lambda: not rows(warehouse, query), 20)
