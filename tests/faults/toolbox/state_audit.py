"""The audit of a stream's current state. Like the audit of its rows, it shares no code with landing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from include.streams.definition import Stream

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from tests.faults.toolbox.audit import Record

COORDINATES = ("kafka_incarnation", "kafka_partition", "kafka_offset")


class Change(NamedTuple):
    """What one record does to its key.

    Attributes:
        rank: Orders the changes of a key.
        place: Incarnation, partition and offset.
        row: The values of its row; None for a tombstone.
    """

    rank: tuple[Any, ...]
    place: tuple[int, int, int]
    row: Mapping[str, Any] | None

    def deletes(self, stream: Stream) -> bool:
        """Whether it deletes the key."""
        if self.row is None:
            return True
        match stream.deletes:
            case None | "tombstone":
                return False
            case str(name):
                return bool(self.row[name])
            case (name, *values):
                return self.row[str(name)] in values
        return False


class Expected:
    """The state that follows from the records of a topic, one after the other in any order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._keys = (stream.key,) if isinstance(stream.key, str) else tuple(stream.key or ())
        self._last: dict[tuple[Any, ...], Change] = {}

    def land(self, place: tuple[int, int, int], row: Mapping[str, Any]) -> None:
        """Adds a row of the history."""
        order = self._stream.order_by
        self._add(tuple(row[name] for name in self._keys), Change(self._rank(place, order and row[order]), place, row))

    def skip(self, place: tuple[int, int, int], record: Record) -> None:
        """Adds a tombstone."""
        if self._stream.deletes != "tombstone":
            return
        text = (record.key or b"").decode()
        found = json.loads(text) if text[:1] in "{-0123456789" else text
        key = tuple(found[name] for name in self._keys) if isinstance(found, dict) else (found,)
        self._add(key, Change(self._rank(place, None), place, None))

    def wrong(self, connection: Connection) -> Iterable[str]:
        """How the table differs, one line for each key."""
        names = [field.name for field in self._stream.fields]
        columns = ", ".join(f'"{name}"' for name in (*COORDINATES, "kafka_deleted", *names))
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM landing.{self._stream.name}_state")
            stored = {
                tuple(row[4 + names.index(name)] for name in self._keys): (row[:3], row[3], row[4:]) for row in cursor
            }
            cursor.execute(f"SELECT {', '.join(self._keys)} FROM landing.{self._stream.name}_current")
            live = set(cursor.fetchall())
        for key in sorted(stored.keys() | self._last.keys(), key=str):
            if key not in stored or key not in self._last:
                yield f"the key {key} is {'missing in the state' if key in self._last else 'of no record'}"
                continue
            change, (place, is_deleted, values) = self._last[key], stored[key]
            deletes = change.deletes(self._stream)
            if place != change.place:
                yield f"the key {key} shows {place}, and its last record is {change.place}"
            elif is_deleted != deletes or (key in live) == deletes:
                yield f"the key {key} is deleted: {is_deleted}, not {deletes}"
            elif not deletes and change.row is not None and list(values) != [change.row[name] for name in names]:
                yield f"the key {key} has {values}, not {change.row}"

    def _rank(self, place: tuple[int, int, int], order: Any) -> tuple[Any, ...]:
        incarnation, partition, offset = place
        return (incarnation, offset) if self._stream.order_by is None else (order, incarnation, partition, offset)

    def _add(self, key: tuple[Any, ...], change: Change) -> None:
        if key not in self._last or self._last[key].rank < change.rank:
            self._last[key] = change
