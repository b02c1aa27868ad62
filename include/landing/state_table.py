"""The state table of a stream and its view: created, filled from the history, and changed with the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import state
from include.landing.relation import COORDINATES, Change, Column, columns_of, copied, identifier
from include.landing.state import DELETED, SCHEMA, State, table_of, view_of
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream
    from include.streams.field import Field

# How long the fill of a new table waits for the transactions that write to the history. Readers do not wait for it.
_WAIT = "5s"


def changes(connection: Connection, stream: Stream) -> list[Change]:
    """The changes that the state table and its view need, after those of the stream's table.

    Raises:
        NonRetryableError: A relation of another kind has one of the names, or a column or the key has another type.
    """
    kept, wanted = state.rules_kept(connection, stream), state.rules_wanted(stream)
    if wanted is None:
        return [] if kept is None else [_end(stream)]
    _require_own(connection, stream, kept is not None)
    present = columns_of(connection, table_of(stream))
    if not present:
        return [_creation(stream), _view(stream, [field.name for field in _fields(stream)]), _filling(stream)]
    _require_key(connection, stream, present, wanted[0])
    needed = [_addition(stream, field) for field in _fields(stream) if field.name not in present]
    shown = list(columns_of(connection, view_of(stream)))
    hidden = [field.name for field in _fields(stream) if field.name not in shown]
    if hidden:
        needed.append(_view(stream, [*shown, *hidden]))
    if kept != wanted or any(field.name not in present for field in stream.record_fields):
        needed.append(_filling(stream))
    return needed


def _fields(stream: Stream) -> tuple[Field, ...]:
    """The columns of the view, in the order of a new table."""
    fields = {field.name: field for field in stream.fields}
    others = [field for field in stream.fields if field.name not in stream.keys]
    return (*(fields[name] for name in stream.keys), *COORDINATES, *stream.record_fields, *others)


def _require_own(connection: Connection, stream: Stream, is_kept: bool) -> None:
    for name, expected in ((table_of(stream), "r"), (view_of(stream), "v")):
        kind = queries.load("landing").read_kind(connection, stream=name)
        if kind is None or (kind == expected and is_kept):
            continue
        raise NonRetryableError(
            f"Stream {stream.name!r} keeps its current state in landing.{name}, but a relation of that name exists, "
            "which is not kept up to date.",
            "Drop or rename it; the next run creates it again, and fills it from the history.",
            code=Code.NAME_TAKEN,
        )


def _require_key(connection: Connection, stream: Stream, present: dict[str, Column], key: list[str]) -> None:
    found = queries.load("landing").read_key(connection, stream=table_of(stream)) or []
    if list(found) != key:
        raise NonRetryableError(
            f"Stream {stream.name!r}: key is {', '.join(key)} in the definition, but the primary key of "
            f"landing.{table_of(stream)} is {', '.join(found) or 'missing'}.",
            f"Set key to its former value. Or drop landing.{view_of(stream)} and landing.{table_of(stream)}: the next "
            "run creates both again, and fills them from the history.",
            code=Code.TABLE_INCOMPATIBLE,
        )
    for field in _fields(stream):
        if field.name in present and present[field.name].sql != field.sql:
            raise NonRetryableError(
                f"Stream {stream.name!r}: {field.name} is {field.sql}, but {present[field.name].sql} in the table "
                f"landing.{table_of(stream)}.",
                f"Drop landing.{view_of(stream)} and landing.{table_of(stream)}: the next run creates both again, and "
                "fills them from the history.",
                code=Code.TABLE_INCOMPATIBLE,
            )


def _creation(stream: Stream) -> Change:
    from psycopg2 import sql

    required = {*stream.keys, *state.COORDINATES}
    columns = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(field.name), sql.SQL(field.sql), sql.SQL(" NOT NULL" if field.name in required else "")
        )
        for field in _fields(stream)
    ]
    # Room in each page, so that a changed row stays in its page and its index entry stays valid.
    create = sql.SQL(
        "CREATE TABLE {} ({}, {} boolean NOT NULL DEFAULT false, PRIMARY KEY ({})) WITH (fillfactor = 75)"
    ).format(
        identifier(table_of(stream)),
        sql.SQL(", ").join(columns),
        sql.Identifier(DELETED),
        sql.SQL(", ").join(map(sql.Identifier, stream.keys)),
    )
    comments = [
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            identifier(table_of(stream)),
            sql.Literal(f"The last record of each key of landing.{stream.name}, with deleted keys"),
        ),
        *(
            _comment(table_of(stream), name, text)
            for name, text in ((DELETED, "Whether this record deletes the key"), *_descriptions(stream))
        ),
    ]
    return Change(
        f"create the table landing.{table_of(stream)}, with one row for each key",
        sql.SQL("; ").join([create, *comments]),
        creates_table=True,
    )


def _descriptions(stream: Stream) -> list[tuple[str, str]]:
    return [(field.name, field.comment) for field in _fields(stream) if field.comment]


def _view(stream: Stream, columns: list[str]) -> Change:
    from psycopg2 import sql

    statement = sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT {} FROM {} WHERE NOT {}").format(
        identifier(view_of(stream)),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        identifier(table_of(stream)),
        sql.Identifier(DELETED),
    )
    summary = f"The current state of landing.{stream.name}: its last record of each key"
    comment = sql.SQL("COMMENT ON VIEW {} IS {}").format(identifier(view_of(stream)), sql.Literal(summary))
    comments = [_comment(view_of(stream), name, text) for name, text in _descriptions(stream)]
    return Change(f"write the view landing.{view_of(stream)}", sql.SQL("; ").join([statement, comment, *comments]))


def _addition(stream: Stream, field: Field) -> Change:
    from psycopg2 import sql

    statement = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        identifier(table_of(stream)), sql.Identifier(field.name), sql.SQL(field.sql)
    )
    return Change(
        f"add the column {field.name!r} ({field.sql}) to landing.{table_of(stream)}", statement, adds_column=field.name
    )


def _filling(stream: Stream) -> Change:
    """Fills the table from the history. No record lands in between without its state.

    A drain with the former definition is fenced, and a replay or a retry finds that the definition has changed. Rows of
    keys whose records are no longer in the history stay.
    """

    def fill(connection: Connection) -> None:
        from psycopg2 import sql

        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{_WAIT}'")
            # In the order of a drain, which changes its position before it writes rows.
            queries.load("position").fence_positions(connection, reader=stream.reader)
            cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(identifier(stream.name)))
        State(stream, copied(stream)).fill(connection)
        rules = state.rules_wanted(stream)
        assert rules is not None
        key, order_by, deletes = rules
        queries.load("landing").note_current(
            connection, stream=stream.name, key=key, order_by=order_by, deletes=deletes
        )

    return Change(f"fill landing.{table_of(stream)} from landing.{stream.name}", None, work=fill, fences=True)


def _end(stream: Stream) -> Change:
    def forget(connection: Connection) -> None:
        queries.load("landing").forget_current(connection, stream=stream.name)

    return Change(f"no longer keep landing.{table_of(stream)} up to date", None, work=forget)


def _comment(relation: str, column: str, text: str) -> sql.Composable:
    from psycopg2 import sql

    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(sql.Identifier(SCHEMA, relation, column), sql.Literal(text))
