"""The table of a stream: made from its definition, and changed with it as long as nothing can be lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import LastingError
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


@dataclass(frozen=True)
class Change:
    """One change that a table needs.

    Attributes:
        says: The change in words.
        statement: The change in SQL.
    """

    says: str
    statement: sql.Composable


def identifier(name: str) -> sql.Identifier:
    """A table of the schema ``landing``, quoted."""
    from psycopg2 import sql

    return sql.Identifier(SCHEMA, name)


def bring_up_to_date(connection: Connection, stream: Stream) -> list[str]:
    """Makes or changes the stream's table where it differs from the definition; commits. Returns the changes in words.

    Raises:
        LastingError: The definition asks for what would lose or reinterpret rows that are there.
    """
    if not changes(connection, stream):
        connection.rollback()
        return []
    queries.load("landing").lock_stream(connection, stream=stream.name)
    needed = changes(connection, stream)
    with connection.cursor() as cursor:
        for change in needed:
            cursor.execute(change.statement)
    connection.commit()
    return [change.says for change in needed]


def changes(connection: Connection, stream: Stream) -> list[Change]:
    """What would have to change in the warehouse for the stream to land.

    Raises:
        LastingError: The definition asks for what would lose or reinterpret rows that are there.
    """
    present = _columns(connection, stream)
    if not present:
        return list(_creation(stream))
    key = queries.load("landing").read_partition_key(connection, stream=stream.name)
    if key not in (f"RANGE ({stream.event_time})", f'RANGE ("{stream.event_time}")'):
        raise LastingError(
            f"Stream {stream.name!r}, event_time: the table landing.{stream.name} is partitioned by {key}, "
            f"not by {stream.event_time!r}.",
            "Keep event_time as it was, or give the stream a new name and with it a new table.",
        )
    needed: list[Change] = []
    for field in stream.fields:
        if field.name in present:
            needed += _alterations(stream, field, *present[field.name])
        else:
            needed += _addition(stream, field)
    needed += [_relaxation(stream, name) for name in _unnamed(present, stream) if present[name][1]]
    return needed


def left_over(connection: Connection, stream: Stream) -> list[str]:
    """The columns that no field of the event names any more; they stay with their values, and new rows hold null."""
    return _unnamed(_columns(connection, stream), stream)


def _columns(connection: Connection, stream: Stream) -> dict[str, tuple[str, bool, str]]:
    """The columns of the stream's table: type, whether null is refused, comment. Empty when there is no table."""
    found = queries.load("landing").read_columns(connection, stream=stream.name)
    return {name: (kind, required, comment) for name, kind, required, comment in found}


def _unnamed(columns: Iterable[str], stream: Stream) -> list[str]:
    named = {field.name for field in (*COORDINATES, *stream.fields)}
    return [name for name in columns if name not in named]


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
    return [Change(f"make the table landing.{stream.name}", sql.SQL("; ").join([create, described, *comments]))]


def _addition(stream: Stream, field: Field) -> list[Change]:
    from psycopg2 import sql

    if not field.nullable:
        raise LastingError(
            f"Stream {stream.name!r}, event.{field.name}: the field is new, and the rows in landing.{stream.name} have "
            "no value for it.",
            f"Let it be None: {field.name}: … | None = None.",
        )
    statement = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        identifier(stream.name), sql.Identifier(field.name), sql.SQL(field.sql)
    )
    if field.comment:
        statement = sql.SQL("; ").join([statement, _comment(stream, field)])
    return [Change(f"add the column landing.{stream.name}.{field.name}, {field.sql}", statement)]


def _alterations(stream: Stream, field: Field, kind: str, required: bool, comment: str) -> list[Change]:
    if kind != field.sql:
        raise LastingError(
            f"Stream {stream.name!r}, event.{field.name}: it is {field.sql} in the definition and {kind} in the table "
            f"landing.{stream.name}.",
            "Keep its type and add a field of another name, or give the stream a new name and with it a new table.",
        )
    needed = []
    if required and field.nullable:
        needed.append(_relaxation(stream, field.name))
    if comment != field.comment:
        needed.append(Change(f"describe landing.{stream.name}.{field.name} anew", _comment(stream, field)))
    return needed


def _relaxation(stream: Stream, column: str) -> Change:
    from psycopg2 import sql

    return Change(
        f"let landing.{stream.name}.{column} be null",
        sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(identifier(stream.name), sql.Identifier(column)),
    )


def _comment(stream: Stream, field: Field) -> sql.Composable:
    from psycopg2 import sql

    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(SCHEMA, stream.name, field.name), sql.Literal(field.comment)
    )


def _summary(stream: Stream) -> str:
    lines = str(stream.event.__doc__ or "").strip().splitlines()
    return storable(lines[0]) if lines else f"Events of the topic {stream.topic}"
