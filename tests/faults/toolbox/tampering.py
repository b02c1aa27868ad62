"""What a drain would be without one of its mechanisms: each function breaks it in the process it is called in.

A scenario is honest when it fails with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any


def position_moves_alone() -> None:
    """The position is committed before what lies below it."""
    from include.kafka import position

    advance = position.advance

    def advance_and_commit(connection: Any, *arguments: Any) -> Any:
        claim = advance(connection, *arguments)
        connection.commit()
        return claim

    setattr(position, "advance", advance_and_commit)  # noqa: B010


def rows_are_committed_alone() -> None:
    """The rows are committed before the rest of their transaction."""
    from include.landing.drain import Drain

    copy = Drain._copy

    def copy_and_commit(self: Any, batch: Any) -> None:
        copy(self, batch)
        with self._connection.cursor() as cursor:
            # Not as COMMIT: a scenario waits for this one, and not for the other.
            cursor.execute("END; BEGIN")

    Drain._copy = copy_and_commit  # type: ignore[method-assign]


def nobody_compares() -> None:
    """The position moves whatever its owner and offset are."""
    from include.kafka import position

    def advance(
        connection: Any, reader: str, topic: str, positions: Mapping[int, Any], reached: Mapping[int, Any]
    ) -> dict[int, Any]:
        with connection.cursor() as cursor:
            for partition, (offset, _) in reached.items():
                cursor.execute(
                    "UPDATE millrace.position SET next_offset = %s WHERE reader = %s AND topic = %s AND partition = %s",
                    (offset, reader, topic, partition),
                )
        return dict(positions) | {p: replace(positions[p], next_offset=offset) for p, (offset, _) in reached.items()}

    position.advance = advance


def coordinates_may_repeat() -> None:
    """As ``nobody_compares``, with a table that would not mind to hold a record twice."""
    from include.landing import table

    nobody_compares()
    bring_up_to_date = table.bring_up_to_date

    def without_key(connection: Any, stream: Any) -> list[str]:
        said = bring_up_to_date(connection, stream)
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE landing.{stream.name} DROP CONSTRAINT IF EXISTS {stream.name}_pkey")
        connection.commit()
        return said

    table.bring_up_to_date = without_key


def dead_letters_are_dropped() -> None:
    """What cannot be landed is counted and thrown away."""
    from include.landing import dead_letters

    dead_letters.keep = lambda *arguments: None


def lost_offsets_are_jumped() -> None:
    """A consumer as its defaults have it: offsets that are gone are skipped in silence."""
    from include.kafka import client

    consumer = client.consumer
    client.consumer = lambda **overrides: consumer(**{"auto_offset_reset": "earliest", **overrides})


def aborted_records_are_read() -> None:
    """A consumer that does not care about transactions."""
    from include.kafka import client

    consumer = client.consumer
    client.consumer = lambda **overrides: consumer(**{"isolation_level": "read_uncommitted", **overrides})


def statements_take_two_seconds_at_most() -> None:
    """Nothing broken: only a limit that a test can wait for."""
    from include.landing import drain

    drain._SESSION = drain._SESSION.replace("statement_timeout=60s", "statement_timeout=2s")
    assert "statement_timeout=2s" in drain._SESSION


def tails_are_short() -> None:
    """Nothing broken: only a limit that a test can wait for."""
    from include.landing import handover

    handover.LIMIT_S = 2.0


def topics_are_quiet_soon() -> None:
    """Nothing broken: nobody waits long for more to come where all has come already."""
    from include.streams.definition import Stream

    Stream.quiet_s = property(lambda self: 0.5)  # type: ignore[assignment,method-assign]
