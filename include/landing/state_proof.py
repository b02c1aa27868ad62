"""The proof of a stream's current state: it equals the last record of each key, as far as the history has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from include.landing import copy, placement, spans, state
from include.landing.dead_letters import NO_STAMP
from include.landing.placement import PARTITIONS_PER_QUERY
from include.landing.spans import Span
from include.landing.state import COORDINATES, SCHEMA
from include.landing.tombstones import KeyDecoder
from include.schemas.framing import Headers
from include.streams.definition import Stream
from include.streams.keys import TOMBSTONE
from include.streams.times import RECORD_TIMESTAMP

if TYPE_CHECKING:
    from psycopg2 import sql

Read = Callable[[Any, Mapping[str, Any] | None], list[tuple[Any, ...]]]
"""Runs a query in a transaction of its own, with its parameters."""


MAX_SHOWN = 6
_ARRAYS = {"timestamp with time zone": "timestamptz[]"}


class Tombstone(NamedTuple):
    """What Kafka holds for a tombstone.

    Attributes:
        key: The Kafka key.
        stamp: The timestamp, in milliseconds since 1970.
        headers: The headers.
    """

    key: bytes | None
    stamp: int
    headers: Headers | None


class StateProof:
    """Compares the state table of a stream with its history and with the tombstones that Kafka still has.

    Args:
        existing: The spans of the history's partitions.
        bounded: Whether all of its partitions have bounds.
        now: The present time, for the retention of the history.
        compared: The columns that the rows of both tables have from a record.
    """

    def __init__(
        self,
        stream: Stream,
        read: Read,
        existing: Sequence[Span],
        bounded: bool,
        now: datetime,
        compared: Sequence[str],
    ) -> None:
        self._stream, self._read, self._existing, self._bounded = stream, read, existing, bounded
        self._cut_off = spans.cut_off(stream, now)
        self._compared = compared
        columns = {column.name: column for column in copy.columns_of_stream(stream)}
        self._key = tuple(columns[name] for name in stream.keys)
        self._types = {field.name: field.sql for field in stream.fields}
        self._keys = KeyDecoder(stream, self._key) if stream.deletes == TOMBSTONE else None

    def prove(self) -> Iterator[tuple[str, list[str]]]:
        """Yields each error with the records at which it occurs."""
        newer, wrong = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        for chunk in self._chunks():
            newer += self._read(self._newer(chunk), None)
            wrong += self._read(self._differing(chunk), None)
        table = f"landing.{state.table_of(self._stream)}"
        yield f"{table}: records that are newer than the state of their key", _shown(newer)
        yield f"{table}: rows that differ from the record that they show", _shown(wrong)
        if self._stream.changes is not None:
            names = set(self._stream.changes.replaceable).intersection(self._compared)
            kept = [place for name in sorted(names) for place in self._read(self._unlike(name), None)]
            yield f"{table}: values that did not change and differ from the last change with them", _shown(kept)

    def ends(self) -> list[tuple[int, int, int]]:
        """The highest offset that a row shows, for each incarnation and partition of the topic."""
        from psycopg2 import sql

        query = sql.SQL(
            "SELECT kafka_incarnation, kafka_partition, max(kafka_offset) FROM {} GROUP BY 1, 2 ORDER BY 1, 2"
        ).format(self._table)
        return [(incarnation, partition, offset) for incarnation, partition, offset in self._read(query, None)]

    def tombstones(
        self, incarnation: int, partition: int, found: Mapping[int, Tombstone]
    ) -> Iterator[tuple[str, list[int]]]:
        """Yields each error of tombstones that are not dead letters, with their offsets.

        Args:
            found: The tombstone of each offset.
        """
        if self._keys is None or not found:
            return
        offsets = list(found)
        keys, bad = self._keys.keys([each.key for each in found.values()], [each.headers for each in found.values()])
        timeless = {offset for offset in offsets if self._stream.has_record_time and found[offset].stamp == NO_STAMP}
        yield "tombstones that name no key, and are not dead letters", sorted({offsets[i] for i in bad} | timeless)
        good = [offset for index, offset in enumerate(offsets) if index not in bad]
        parameters: dict[str, Any] = {
            "incarnation": incarnation,
            "partition": partition,
            "offsets": good,
            "stamps": [found[offset].stamp for offset in good],
        }
        for number, column in enumerate(self._key):
            values = column.array(column.read(keys)).to_pylist()
            parameters[f"key{number}"] = [_parameter(value, self._types[column.name]) for value in values]
        yield "tombstones whose key is not deleted", [offset for (offset,) in self._read(self._undeleted(), parameters)]

    @property
    def _table(self) -> sql.Identifier:
        from psycopg2 import sql

        return sql.Identifier(SCHEMA, state.table_of(self._stream))

    @property
    def _history(self) -> sql.Identifier:
        from psycopg2 import sql

        return sql.Identifier(SCHEMA, self._stream.name)

    def _chunks(self) -> Iterator[Callable[[str], sql.Composable]]:
        """Conditions for the rows of some partitions of the history, as functions of the relation's name."""
        from psycopg2 import sql

        if not self._bounded:
            yield lambda of: sql.SQL("true")
            return
        for start in range(0, len(self._existing), PARTITIONS_PER_QUERY):
            some = self._existing[start : start + PARTITIONS_PER_QUERY]
            yield lambda of, some=some: placement.within(self._stream.event_time, some, of)  # type: ignore[misc]

    def _newer(self, within: Callable[[str], sql.Composable]) -> sql.Composable:
        """The query for rows of the history that are newer than the state of their key, or have none."""
        from psycopg2 import sql

        return sql.SQL(
            "SELECT {places} FROM {history} AS newest LEFT JOIN {state} AS stored ON {same_key} "
            "WHERE {within} AND {has_key} AND {covered} IS NOT TRUE LIMIT {most}"
        ).format(
            places=state.names_in(COORDINATES, "newest"),
            history=self._history,
            state=self._table,
            same_key=state.equal(self._stream.keys, "stored", "newest"),
            within=within("newest"),
            has_key=_not_null(self._stream.keys, "newest"),
            covered=state.not_newer(self._stream, "newest", "stored"),
            most=sql.Literal(MAX_SHOWN),
        )

    def _differing(self, within: Callable[[str], sql.Composable]) -> sql.Composable:
        """The query for rows that differ from the row of the history that they show."""
        from psycopg2 import sql

        stream = self._stream
        place = (*COORDINATES, stream.event_time)
        # A tombstone has no row in the history.
        unknown = sql.SQL("false" if stream.deletion is None else "history.kafka_offset IS NULL")
        return sql.SQL(
            "SELECT {places} FROM {state} AS stored "
            "LEFT JOIN {history} AS history ON {same_place} AND {within_history} "
            "WHERE {within_state} AND stored.{event_time} >= {cut_off} AND CASE WHEN stored.kafka_deleted "
            "THEN {unknown} OR history.kafka_offset IS NOT NULL AND NOT {deletes} "
            "ELSE history.kafka_offset IS NULL OR {deletes} OR ({stored}) IS DISTINCT FROM ({recorded}) END "
            "LIMIT {most}"
        ).format(
            places=state.names_in(COORDINATES, "stored"),
            state=self._table,
            history=self._history,
            same_place=state.equal(place, "stored", "history"),
            within_history=within("history"),
            within_state=within("stored"),
            event_time=sql.Identifier(stream.event_time),
            cut_off=sql.Literal(self._cut_off),
            unknown=unknown,
            deletes=state.deletes(stream, "history"),
            stored=self._known("stored"),
            recorded=self._known("history"),
            most=sql.Literal(MAX_SHOWN),
        )

    def _known(self, of: str) -> sql.Composable:
        """The compared columns of a relation, null where the record does not have the value."""
        from psycopg2 import sql

        if self._stream.changes is None:
            return state.names_in(self._compared, of)
        replaceable = self._stream.changes.replaceable
        return sql.SQL(", ").join(
            sql.SQL(
                "CASE WHEN NOT coalesce(history.change_unchanged ? {}, false) THEN {} END"
                if name in replaceable
                else "{1}"
            ).format(sql.Literal(name), sql.Identifier(of, name))
            for name in self._compared
        )

    def _unlike(self, name: str) -> sql.Composable:
        """The query for rows whose value of a column did not change, and is not that of the last change with one."""
        from psycopg2 import sql

        column = sql.Literal(name)
        return sql.SQL(
            "SELECT {places} FROM (SELECT DISTINCT ON ({stored_keys}) stored.*, history.{name} AS kafka_kept "
            "FROM {state} AS stored JOIN {history} AS history ON {same_key} AND {older} "
            "WHERE stored.change_unchanged ? {column} AND NOT coalesce(history.change_unchanged ? {column}, false) "
            "ORDER BY {stored_keys}, {newest_first}) AS found "
            "WHERE found.kafka_kept IS DISTINCT FROM found.{name} LIMIT {most}"
        ).format(
            places=state.names_in(COORDINATES, "found"),
            stored_keys=state.names_in(self._stream.keys, "stored"),
            name=sql.Identifier(name),
            column=column,
            state=self._table,
            history=self._history,
            same_key=state.equal(self._stream.keys, "stored", "history"),
            older=state.not_newer(self._stream, "history", "stored"),
            newest_first=state.newest_first(self._stream, "history"),
            most=sql.Literal(MAX_SHOWN),
        )

    def _undeleted(self) -> sql.Composable:
        """The query for tombstones that are newer than the state of their key, or are shown as another record."""
        from psycopg2 import sql

        arrays = [
            sql.SQL("CAST({} AS {})").format(
                sql.Placeholder(f"key{number}"), sql.SQL(_ARRAYS.get(self._types[name], f"{self._types[name]}[]"))
            )
            for number, name in enumerate(self._stream.keys)
        ]
        return sql.SQL(
            "SELECT newest.kafka_offset FROM (SELECT CAST(%(incarnation)s AS smallint) AS kafka_incarnation, "
            "CAST(%(partition)s AS integer) AS kafka_partition, kafka_offset, "
            "timestamptz 'epoch' + kafka_stamp * interval '1 millisecond' AS {timestamp}, {keys} "
            "FROM unnest(CAST(%(offsets)s AS bigint[]), CAST(%(stamps)s AS bigint[]), {arrays}) "
            "AS asked (kafka_offset, kafka_stamp, {keys})) AS newest LEFT JOIN {state} AS stored ON {same_key} "
            "WHERE {covered} IS NOT TRUE OR {same_record} AND NOT stored.kafka_deleted ORDER BY 1"
        ).format(
            timestamp=sql.Identifier(RECORD_TIMESTAMP),
            keys=state.names_in(self._stream.keys),
            arrays=sql.SQL(", ").join(arrays),
            state=self._table,
            same_key=state.equal(self._stream.keys, "stored", "newest"),
            covered=state.not_newer(self._stream, "newest", "stored"),
            same_record=state.equal(COORDINATES, "stored", "newest"),
        )


def _not_null(names: Sequence[str], of: str) -> sql.Composable:
    from psycopg2 import sql

    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(of, name)) for name in names)


def _shown(places: Sequence[tuple[Any, ...]]) -> list[str]:
    return [f"incarnation {i}, partition {p}, offset {o}" for i, p, o in places]


def _parameter(value: Any, sql_type: str) -> Any:
    """A value of a key's COPY as a parameter of a query."""
    import uuid
    from datetime import date, timedelta

    if sql_type == "uuid":
        return str(uuid.UUID(bytes=value))
    if sql_type == "date":
        return date(2000, 1, 1) + timedelta(days=value)
    if sql_type == "timestamp with time zone":
        return spans.moment_of(value + copy.POSTGRES_EPOCH_US)
    return value
