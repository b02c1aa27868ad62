"""The table of a stream: created from its definition, and changed with it as long as no value can be lost.

Columns, constraints and comments that a user added stay as they are: ``millrace.landing_column`` lists the columns that
Millrace created.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import database_errors, indexes, locks, state_table
from include.landing.relation import COORDINATES, SCHEMA, Change, Column, columns_of, identifier
from include.streams.definition import KAFKA_TOPIC, Stream
from include.streams.field import Field, storable
from include.streams.indexes import indexes_of
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

__all__ = ["SCHEMA", "bring_up_to_date", "changes", "find_changes", "identifier", "left_over", "missing"]

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


def bring_up_to_date(connection: Connection, stream: Stream) -> list[str]:
    """Creates the stream's table, or changes it where it differs from the definition; commits. Returns the changes.

    Raises:
        NonRetryableError: A change would lose or reinterpret rows, or conflicts with a user's column or table.
        Locked: Another session holds a lock on the table; nothing was changed.
    """
    import psycopg2

    needed = find_changes(connection, stream)
    if not needed:
        return []
    purpose = f"Stream {stream.name!r}: the change to {'; '.join(change.description for change in needed)}"
    try:
        return locks.with_short_waits(connection, stream.name, purpose, lambda: _change(connection, stream))
    except psycopg2.Error as error:
        if (explained := database_errors.explained(error)) is None:
            raise
        raise explained from error


def changes(connection: Connection, stream: Stream) -> list[Change]:
    """The changes that the table, and the table of the current state, need before the stream can land.

    Raises:
        NonRetryableError: As for ``bring_up_to_date``.
    """
    return [*_changes(connection, stream), *state_table.changes(connection, stream)]


def _changes(connection: Connection, stream: Stream) -> list[Change]:
    kind = queries.load("landing").read_kind(connection, stream=stream.name)
    if kind is None:
        _require_no_renamed_table(connection, stream)
        return list(_creation(stream))
    if kind != "p":
        raise NonRetryableError(
            f"Stream {stream.name!r} needs the table landing.{stream.name}, but a "
            f"{_KINDS.get(kind, 'relation')} of that name exists, which Millrace did not create.",
            "Rename it, or give the stream another name.",
            code=Code.NAME_TAKEN,
        )
    key = queries.load("landing").read_partition_key(connection, stream=stream.name)
    if key not in (f"RANGE ({stream.event_time})", f'RANGE ("{stream.event_time}")'):
        raise NonRetryableError(
            f"Stream {stream.name!r}: event_time is {stream.event_time!r}, but the table landing.{stream.name} is "
            f"partitioned by {key}.",
            "Set event_time to its former value, or give the stream a new name and with it a new table.",
            code=Code.TABLE_INCOMPATIBLE,
        )
    present = columns_of(connection, stream.name)
    needed: list[Change] = []
    if stream.topics is not None and KAFKA_TOPIC not in present:
        needed.append(_topic_addition(connection, stream))
    for field in stream.fields:
        if field.name in present:
            needed += _alterations(stream, field, present[field.name])
        else:
            needed += _addition(stream, field)
    for name in _unnamed(present, stream):
        needed += _release(stream, name, present[name])
    return [*needed, *indexes.changes(connection, stream)]


def find_changes(connection: Connection, stream: Stream) -> list[Change]:
    """``changes`` in a transaction of its own that does not wait long for a locked table.

    Raises:
        NonRetryableError: As for ``bring_up_to_date``.
        Locked: Another session holds a lock that blocks even reading the table's definition.
    """
    purpose = f"Stream {stream.name!r}: reading the table's definition"
    return locks.with_short_waits(connection, stream.name, purpose, lambda: changes(connection, stream))


def left_over(connection: Connection, stream: Stream) -> list[str]:
    """The columns whose fields were removed from the event. They keep their values, and new rows have NULL there."""
    present = columns_of(connection, stream.name)
    return [name for name in _unnamed(present, stream) if present[name].made is not None]


def missing(connection: Connection, stream: Stream) -> set[str]:
    """The fields that have no column yet; none if the table does not exist."""
    present = columns_of(connection, stream.name)
    wanted = {field.name for field in (*stream.record_fields, *stream.fields)}
    return wanted - present.keys() if present else set()


def _change(connection: Connection, stream: Stream) -> list[str]:
    sql = queries.load("landing")
    sql.lock_stream(connection, stream=stream.name)
    needed = changes(connection, stream)
    if sql.read_kind(connection, stream=stream.name) is None:
        sql.forget_columns(connection, stream=stream.name)
    with connection.cursor() as cursor:
        for change in needed:
            if change.statement is not None:
                cursor.execute(change.statement)
            if change.work is not None:
                change.work(connection)
            if change.records:
                names, required = zip(*change.records, strict=True)
                sql.note_columns(connection, stream=stream.name, names=list(names), required=list(required))
    return [change.description for change in needed]


def _unnamed(columns: Iterable[str], stream: Stream) -> list[str]:
    named = {field.name for field in (*COORDINATES, *stream.record_fields, *stream.fields)}
    return [name for name in columns if name not in named]


def _require_no_renamed_table(connection: Connection, stream: Stream) -> None:
    """Raises an error if the table was renamed: its partitions still have the names that a new table needs."""
    for known, schema, name in queries.load("landing").read_renamed(connection, stream=stream.name):
        back = f"SET SCHEMA {SCHEMA}" if schema != SCHEMA else f"RENAME TO {stream.name}"
        raise NonRetryableError(
            f"Stream {stream.name!r}: the table landing.{stream.name} does not exist. It was probably renamed or moved "
            f"to {known if '.' in known else f'{schema}.{name}'}, whose partitions have the names that a new table "
            "needs.",
            f"Undo that: ALTER TABLE {schema}.{name} {back}. Or, to begin with a new, empty table, rename the "
            f"partitions of {schema}.{name}.",
            code=Code.NAME_TAKEN,
        )


def _creation(stream: Stream) -> list[Change]:
    from psycopg2 import sql

    parent = identifier(stream.name)
    fields = (*COORDINATES, *stream.record_fields, *stream.fields)
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
    records = tuple((field.name, not field.nullable) for field in fields)
    created = Change(f"create the table landing.{stream.name}", statement, creates_table=True, records=records)
    return [created, *(indexes.creation(stream, index) for index in indexes_of(stream))]


def _addition(stream: Stream, field: Field) -> list[Change]:
    from psycopg2 import sql

    if not field.nullable:
        raise NonRetryableError(
            f"Stream {stream.name!r}: the new field event.{field.name} does not allow None, but the rows in "
            f"landing.{stream.name} have no value for it.",
            f"Allow None: {field.name}: … | None = None.",
            code=Code.TABLE_INCOMPATIBLE,
        )
    statement = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        identifier(stream.name), sql.Identifier(field.name), sql.SQL(field.sql)
    )
    if field.comment:
        statement = sql.SQL("; ").join([statement, _comment(stream, field)])
    description = f"add the column {field.name!r} ({field.sql}) to landing.{stream.name}"
    return [Change(description, statement, adds_column=field.name, records=((field.name, False),))]


def _topic_addition(connection: Connection, stream: Stream) -> Change:
    """The column with the topic, for a table whose rows are from one topic."""
    from psycopg2 import sql

    landed = [topic for (topic,) in queries.load("landing").read_landed_topics(connection, stream=stream.name)]
    if len(landed) > 1:
        raise NonRetryableError(
            f"Stream {stream.name!r}: the table landing.{stream.name} has no column {KAFKA_TOPIC!r}, and its rows are "
            f"from several topics: {', '.join(landed)}.",
            "Give the stream a new name and with it a new table.",
            code=Code.TABLE_INCOMPATIBLE,
        )
    (field,) = (field for field in stream.record_fields if field.name == KAFKA_TOPIC)
    column, former = sql.Identifier(KAFKA_TOPIC), sql.Literal(landed[0] if landed else "")
    # With a constant default, PostgreSQL does not rewrite the rows.
    statement = sql.SQL("; ").join(
        [
            sql.SQL("ALTER TABLE {} ADD COLUMN {} text NOT NULL DEFAULT {}").format(
                identifier(stream.name), column, former
            ),
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT").format(identifier(stream.name), column),
            _comment(stream, field),
        ]
    )
    description = f"add the column {KAFKA_TOPIC!r} (text) to landing.{stream.name}"
    return Change(description, statement, adds_column=KAFKA_TOPIC, records=((KAFKA_TOPIC, True),))


def _alterations(stream: Stream, field: Field, column: Column) -> list[Change]:
    where = f"landing.{stream.name}.{field.name}"
    if column.is_generated:
        raise NonRetryableError(
            f"Stream {stream.name!r}: the column {where} of the field event.{field.name} is a generated column, so no "
            "value can be written to it.",
            "Give the field another name, or drop the column.",
            code=Code.COLUMN_CONFLICT,
        )
    if column.sql != field.sql:
        raise NonRetryableError(
            f"Stream {stream.name!r}: event.{field.name} is {field.sql} in the definition, but {column.sql} in the "
            f"table landing.{stream.name}.",
            "Keep its type and add a field of another name, or give the stream a new name and with it a new table. If "
            f"a user changed the column's type: ALTER TABLE landing.{stream.name} ALTER COLUMN {field.name} TYPE "
            f"{field.sql}.",
            code=Code.TABLE_INCOMPATIBLE,
        )
    needed = []
    if column.required and field.nullable and column.made:
        needed.append(_relaxation(stream, field.name))
    # A field without a description does not overwrite a comment that a user may have written.
    if field.comment and column.comment != field.comment:
        needed.append(Change(f"describe {where}", _comment(stream, field)))
    return needed


def _release(stream: Stream, name: str, column: Column) -> list[Change]:
    """The change that a column without a field needs, so that rows without a value for it can land."""
    if not column.required or column.fills_itself or column.is_generated:
        return []
    if column.made:
        return [_relaxation(stream, name)]
    by_user = "A user made it NOT NULL" if column.made is False else "A user added it"
    raise NonRetryableError(
        f"Stream {stream.name!r}: no row can land, because the column landing.{stream.name}.{name} is NOT NULL, has no "
        f"default, and no field of the event fills it. {by_user}.",
        f"Allow null: ALTER TABLE landing.{stream.name} ALTER COLUMN {name} DROP NOT NULL. Or give it a default: ALTER "
        f"TABLE landing.{stream.name} ALTER COLUMN {name} SET DEFAULT followed by the value.",
        code=Code.COLUMN_CONFLICT,
    )


def _relaxation(stream: Stream, column: str) -> Change:
    from psycopg2 import sql

    return Change(
        f"allow null in landing.{stream.name}.{column}",
        sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(identifier(stream.name), sql.Identifier(column)),
        allows_null=column,
        records=((column, False),),
    )


def _comment(stream: Stream, field: Field) -> sql.Composable:
    from psycopg2 import sql

    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        sql.Identifier(SCHEMA, stream.name, field.name), sql.Literal(field.comment)
    )


def _summary(stream: Stream) -> str:
    lines = str(stream.event.__doc__ or "").strip().splitlines()
    return storable(lines[0]) if lines else f"Events of the topic {stream.topic}"
