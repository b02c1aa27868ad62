"""Tampering: each function disables one mechanism of the drain, in the process that calls it.

A scenario is only useful if it fails then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any


def position_moves_alone() -> None:
    """The position is committed before the rows below it."""
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
            # END and not COMMIT: the scenario waits for this commit, and not for the other one.
            cursor.execute("END; BEGIN")

    Drain._copy = copy_and_commit  # type: ignore[method-assign]


def states_are_committed_alone() -> None:
    """The rest of a transaction is committed before the current state is written."""
    from include.landing.state import State

    write = State.write

    def commit_and_write(self: Any, connection: Any, latest: Any, *, in_order: bool = True) -> None:
        with connection.cursor() as cursor:
            cursor.execute("END; BEGIN")
        write(self, connection, latest, in_order=in_order)

    State.write = commit_and_write  # type: ignore[method-assign]


def positions_move_without_comparison() -> None:
    """The position moves for any owner and from any offset."""
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
    """Like ``positions_move_without_comparison``, with a table that can hold a record twice."""
    from include.landing import table

    positions_move_without_comparison()
    bring_up_to_date = table.bring_up_to_date

    def without_key(connection: Any, stream: Any) -> list[str]:
        changes = bring_up_to_date(connection, stream)
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE landing.{stream.name} DROP CONSTRAINT IF EXISTS {stream.name}_pkey")
        connection.commit()
        return changes

    table.bring_up_to_date = without_key


def dead_letters_are_dropped() -> None:
    """Records that cannot be landed are counted and discarded."""
    from include.landing import dead_letters

    dead_letters.keep = lambda *arguments: None


def lost_offsets_are_skipped() -> None:
    """A consumer with a common setting: it silently skips offsets that no longer exist."""
    from include.kafka import client

    consumer = client.consumer
    client.consumer = lambda **overrides: consumer(**{"auto_offset_reset": "earliest", **overrides})


def aborted_records_are_read() -> None:
    """A consumer that ignores transactions."""
    from include.kafka import client

    consumer = client.consumer
    client.consumer = lambda **overrides: consumer(**{"isolation_level": "read_uncommitted", **overrides})


def statements_take_two_seconds_at_most() -> None:
    """Disables nothing: only shortens a limit, so that a test need not wait for it."""
    from include.landing import drain

    drain._SESSION = drain._SESSION.replace("statement_timeout=60s", "statement_timeout=2s")
    assert "statement_timeout=2s" in drain._SESSION


def takeovers_are_quick() -> None:
    """Disables nothing: only shortens a limit, so that a test need not wait for it."""
    from include.kafka import position

    position.TAKEOVER_AFTER_MS = 500


def tails_are_short() -> None:
    """Disables nothing: only shortens a limit, so that a test need not wait for it."""
    from include.landing import handover

    handover.LIMIT_S = 2.0


def topics_are_quiet_soon() -> None:
    """Disables nothing: only ends a drain soon after its last record."""
    from include.streams.definition import Stream

    Stream.quiet_s = property(lambda self: 0.5)  # type: ignore[assignment,method-assign]
