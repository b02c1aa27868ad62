"""The table of a stream: made from its definition, and changed with it as long as nothing can be lost.

Columns, constraints and comments that a person has added stay as they are: ``millrace.landing_column`` says which
columns are Millrace's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import NonRetryableError
from include.landing import locks
from include.streams.definition import Stream
from include.streams.field import Field, storable
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

SCHEMA = "landing"
COORDINATES = (
    Field("kafka_offset", "bigint", False, "The record's offset in its partition"),
    Field("kafka_partition", "integer", False, "The record's partition in the topic"),
    Field("kafka_incarnation", "smallint", False, "Which topic of that name, see millrace.topic_incarnation"),
)
_KINDS = {
    "r": "table without partitions",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
    "c": "type",
    "i": "index",
    "I": "index",
}


@dataclass(frozen=True)
class Change:
    """One change that a table needs.

    Attributes:
        says: The change in words.
        statement: The change in SQL.
        adds: The column that it adds to a table that is there.
        relaxes: The column in which it allows null.
        creates: Whether it makes the table itself.
        makes: The columns that Millrace has made then, and whether they are NOT NULL.
    """

    says: str
    statement: sql.Composable
    adds: str | None = None
    relaxes: str | None = None
    creates: bool = False
    makes: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of a stream's table as it is.

    Attributes:
        sql: Its type.
        required: Whether null is refused.
        comment: Its comment, empty without one.
        fills_itself: Whether it has a default, or is an identity.
        is_generated: Whether nothing can be written to it.
        made: None for a column that a person has made; else whether Millrace made it NOT NULL.
    """

    sql: str
    required: bool
    comment: str
    fills_itself: bool
    is_generated: bool
    made: bool | None


def identifier(name: str, schema: str = SCHEMA) -> sql.Identifier:
    """A table, of the schema ``landing`` by default, quoted."""
    from psycopg2 import sql

    return sql.Identifier(schema, name)


def bring_up_to_date(connection: Connection, stream: Stream) -> list[str]:
    """Makes or changes the stream's table where it differs from the definition; commits. Returns the changes in words.

    Raises:
        NonRetryableError: The definition asks for what would lose or reinterpret rows, or something of a person's is in
            the way.
        Locked: Somebody keeps the table locked; nothing was changed.
    """
    import psycopg2

    from include.landing import refusals

    needed = look(connection, stream)
    if not needed:
        return []
    purpose = f"Stream {stream.name!r}: to {'; '.join(change.says for change in needed)}"
    try:
        return locks.briefly(connection, stream.name, purpose, lambda: _change(connection, stream))
    except psycopg2.Error as error:
        if (named := refusals.named(error)) is None:
            raise
        raise named from error


def changes(connection: Connection, stream: Stream) -> list[Change]:
    """What would have to change in the warehouse for the stream to land.

    Raises:
        NonRetryableError: As ``bring_up_to_date`` does.
    """
    kind = queries.load("landing").read_kind(connection, stream=stream.name)
    if kind is None:
        _require_no_other(connection, stream)
        return list(_creation(stream))
    if kind != "p":
        raise NonRetryableError(
            f"Stream {stream.name!r}: landing.{stream.name} is a {_KINDS.get(kind, 'relation')}, which Millrace did "
            "not make.",
            f"Rename it, or give the stream another name: its table is landing.{stream.name}.",
        )
    key = queries.load("landing").read_partition_key(connection, stream=stream.name)
    if key not in (f"RANGE ({stream.event_time})", f'RANGE ("{stream.event_time}")'):
        raise NonRetryableError(
            f"Stream {stream.name!r}, event_time: the table landing.{stream.name} is partitioned by {key}, "
            f"not by {stream.event_time!r}.",
            "Keep event_time as it was, or give the stream a new name and with it a new table.",
        )
    present = _columns(connection, stream)
    needed: list[Change] = []
    for field in stream.fields:
        if field.name in present:
            needed += _alterations(stream, field, present[field.name])
        else:
            needed += _addition(stream, field)
    for name in _unnamed(present, stream):
        needed += _release(stream, name, present[name])
    return needed


def look(connection: Connection, stream: Stream) -> list[Change]:
    """What ``changes`` finds, in a transaction of its own, without waiting for long when the table is locked.

    Raises:
        NonRetryableError: As ``bring_up_to_date`` does.
        Locked: Somebody keeps even those waiting who only look at the table's definition.
    """
    purpose = f"Stream {stream.name!r}: a look at the table"
    return locks.briefly(connection, stream.name, purpose, lambda: changes(connection, stream))


def left_over(connection: Connection, stream: Stream) -> list[str]:
    """The columns that no field of the event names any more; they stay with their values, and new rows hold null."""
    present = _columns(connection, stream)
    return [name for name in _unnamed(present, stream) if present[name].made is not None]


def missing(connection: Connection, stream: Stream) -> set[str]:
    """The fields that have no column yet; none when there is no table at all."""
    present = _columns(connection, stream)
    return {field.name for field in stream.fields if field.name not in present} if present else set()


def _change(connection: Connection, stream: Stream) -> list[str]:
    sql = queries.load("landing")
    sql.lock_stream(connection, stream=stream.name)
    needed = changes(connection, stream)
    if sql.read_kind(connection, stream=stream.name) is None:
        sql.forget_columns(connection, stream=stream.name)
    with connection.cursor() as cursor:
        for change in needed:
            cursor.execute(change.statement)
            if change.makes:
                names, required = zip(*change.makes, strict=True)
                sql.note_columns(connection, stream=stream.name, names=list(names), required=list(required))
    return [change.says for change in needed]


def _columns(connection: Connection, stream: Stream) -> dict[str, Column]:
    """The columns of the stream's table. Empty when there is no table."""
    found = queries.load("landing").read_columns(connection, stream=stream.name)
    return {
        row.name: Column(row.type, row.required, row.comment, row.fills_itself, row.is_generated, row.made_required)
        for row in found
    }


def _unnamed(columns: Iterable[str], stream: Stream) -> list[str]:
    named = {field.name for field in (*COORDINATES, *stream.fields)}
    return [name for name in columns if name not in named]


def _require_no_other(connection: Connection, stream: Stream) -> None:
    """A table that was renamed has the partitions still, whose names a new one would need."""
    for known, schema, name in queries.load("landing").read_renamed(connection, stream=stream.name):
        back = f"SET SCHEMA {SCHEMA}" if schema != SCHEMA else f"RENAME TO {stream.name}"
        raise NonRetryableError(
            f"Stream {stream.name!r}: there is no table landing.{stream.name}, and landing holds partitions of the "
            f"table {known if '.' in known else f'{schema}.{name}'} by its partitions' names: it seems to be the "
            "stream's, renamed.",
            f"Name it as it was: ALTER TABLE {schema}.{name} {back}; or rename its partitions, too, for a new table.",
        )


def _creation(stream: Stream) -> list[Change]:
    from psycopg2 import sql

    parent = identifier(stream.name)
    fields = (*COORDINATES, *stream.fields)
    columns = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(field.name), sql.SQL(field.sql), sql.SQL("" if field.nullable else " NOT NULL")
        )
        for field in fields
    ]
    key = ("kafka_incarnation", "kafka_partition", "kafka_offset", stream.event_time)
    create = sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({})) PARTITION BY RANGE ({})").format(
        parent,
        sql.SQL(", ").join(columns),
        sql.SQL(", ").join(map(sql.Identifier, key)),
        sql.Identifier(stream.event_time),
    )
    described = sql.SQL("COMMENT ON TABLE {} IS {}").format(parent, sql.Literal(_summary(stream)))
    comments = [_comment(stream, field) for field in fields if field.comment]
    statement = sql.SQL("; ").join([create, described, *comments])
    makes = tuple((field.name, not field.nullable) for field in fields)
    return [Change(f"make the table landing.{stream.name}", statement, creates=True, makes=makes)]


def _addition(stream: Stream, field: Field) -> list[Change]:
    from psycopg2 import sql

    if not field.nullable:
        raise NonRetryableError(
            f"Stream {stream.name!r}, event.{field.name}: the field is new, and the rows in landing.{stream.name} have "
            "no value for it.",
            f"Let it be None: {field.name}: … | None = None.",
        )
    statement = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        identifier(stream.name), sql.Identifier(field.name), sql.SQL(field.sql)
    )
    if field.comment:
        statement = sql.SQL("; ").join([statement, _comment(stream, field)])
    says = f"add the column landing.{stream.name}.{field.name}, {field.sql}"
    return [Change(says, statement, adds=field.name, makes=((field.name, False),))]


def _alterations(stream: Stream, field: Field, column: Column) -> list[Change]:
    where = f"landing.{stream.name}.{field.name}"
    if column.is_generated:
        raise NonRetryableError(
            f"Stream {stream.name!r}, event.{field.name}: the column {where} is a generated column, to which no value "
            "can be written.",
            "Give the field another name, or drop the column.",
        )
    if column.sql != field.sql:
        raise NonRetryableError(
            f"Stream {stream.name!r}, event.{field.name}: it is {field.sql} in the definition and {column.sql} in the "
            f"table landing.{stream.name}.",
            "Keep its type and add a field of another name, or give the stream a new name and with it a new table. If "
            f"the column's type was changed by hand: ALTER TABLE landing.{stream.name} ALTER COLUMN {field.name} TYPE "
            f"{field.sql}.",
        )
    needed = []
    if column.required and field.nullable and column.made:
        needed.append(_relaxation(stream, field.name))
    # A column without a description keeps what a person may have written about it.
    if field.comment and column.comment != field.comment:
        needed.append(Change(f"describe {where}", _comment(stream, field)))
    return needed


def _release(stream: Stream, name: str, column: Column) -> list[Change]:
    """What a column needs that no field names, so that rows without it can land."""
    if not column.required or column.fills_itself or column.is_generated:
        return []
    if column.made:
        return [_relaxation(stream, name)]
    by_hand = "which Millrace did not say" if column.made is False else "and Millrace did not make it"
    raise NonRetryableError(
        f"Stream {stream.name!r}: the column landing.{stream.name}.{name} is NOT NULL, {by_hand}; it has no default, "
        "and no field of the event fills it, so that no row can land.",
        f"Give it a default: ALTER TABLE landing.{stream.name} ALTER COLUMN {name} SET DEFAULT …; or allow null: "
        "… DROP NOT NULL.",
    )


def _relaxation(stream: Stream, column: str) -> Change:
    from psycopg2 import sql

    return Change(
        f"let landing.{stream.name}.{column} be null",
        sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(identifier(stream.name), sql.Identifier(column)),
        relaxes=column,
        makes=((column, False),),
    )


def _comment(stream: Stream, field: Field) -> sql.Composable:
    from psycopg2 import sql

    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(SCHEMA, stream.name, field.name), sql.Literal(field.comment)
    )


def _summary(stream: Stream) -> str:
    lines = str(stream.event.__doc__ or "").strip().splitlines()
    return storable(lines[0]) if lines else f"Events of the topic {stream.topic}"
