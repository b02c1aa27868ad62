"""The tables and views of the schema ``landing``: their names, their columns, and changes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.streams.definition import Stream
from include.streams.field import Field
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

SCHEMA = "landing"
COORDINATES = (
    Field("kafka_offset", "bigint", False, "The record's offset in its partition"),
    Field("kafka_partition", "integer", False, "The record's partition in the topic"),
    Field("kafka_incarnation", "smallint", False, "Which of the stream's topics, see millrace.topic_incarnation"),
)


@dataclass(frozen=True)
class Change:
    """One change that a table needs.

    Attributes:
        description: The change in words.
        statement: The change in SQL, if it is one.
        adds_column: The column that it adds to a table that exists.
        allows_null: The column whose NOT NULL it drops.
        creates_table: Whether it creates the table.
        records: The columns to record as Millrace's own, and whether they are NOT NULL.
        work: What else to do in the same transaction.
        fences: Whether it fences the drains of the stream.
    """

    description: str
    statement: sql.Composable | None
    adds_column: str | None = None
    allows_null: str | None = None
    creates_table: bool = False
    records: tuple[tuple[str, bool], ...] = ()
    work: Callable[[Connection], None] | None = None
    fences: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a stream's table as it is.

    Attributes:
        sql: Its type.
        required: Whether it is NOT NULL.
        comment: Its comment; empty if it has none.
        fills_itself: Whether it has a default, or is an identity column.
        is_generated: Whether it is a generated column, which cannot be written.
        made: None for a column that a user added; otherwise whether Millrace created it NOT NULL.
    """

    sql: str
    required: bool
    comment: str
    fills_itself: bool
    is_generated: bool
    made: bool | None


def copied_of_records(stream: Stream) -> tuple[str, ...]:
    """The columns that a row has from its record, in the order in which they are copied."""
    coordinates = ("kafka_incarnation", "kafka_partition", "kafka_offset")
    return (*coordinates, *(field.name for field in stream.record_fields))


def copied(stream: Stream) -> tuple[str, ...]:
    """All columns that Millrace writes, in the order in which they are copied."""
    return (*copied_of_records(stream), *(field.name for field in stream.fields))


def identifier(name: str, schema: str = SCHEMA) -> sql.Identifier:
    """A quoted table name, by default in the schema ``landing``."""
    from psycopg2 import sql

    return sql.Identifier(schema, name)


def columns_of(connection: Connection, name: str) -> dict[str, Column]:
    """The columns of a table or view of the schema ``landing``, in their order; empty if it does not exist."""
    found = queries.load("landing").read_columns(connection, stream=name)
    return {
        row.name: Column(row.type, row.required, row.comment, row.fills_itself, row.is_generated, row.made_required)
        for row in found
    }
