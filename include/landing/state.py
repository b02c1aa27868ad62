"""The table of a stream's current state, with one row for each key: written in the transactions that land.

``landing.<stream>_state`` has the columns of the stream's table. A row holds the last record of its key with the
record's coordinates; if that record deletes the key, only the key and the coordinates. A row changes only to a record
that is newer, or to the same record. So the order in which transactions write does not matter: not for a replay of an
old range, not for a retry of an old dead letter, and not for two drains. ``landing.<stream>_current`` shows the rows
that are not deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.landing import database_errors
from include.streams.keys import TOMBSTONE
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

    from include.landing.latest import Latest
    from include.streams.definition import Stream

SCHEMA = "landing"
COORDINATES = ("kafka_incarnation", "kafka_partition", "kafka_offset")
DELETED = "kafka_deleted"
# Tables of the transaction: the last record of each key, the rows that a replay deletes, the keys to look up.
LATEST, REMOVED, STALE = "latest", "removed", "stale"
# A table of the session: the tombstones that a replay has read.
READ_TOMBSTONES = "read_tombstones"


def table_of(stream: Stream) -> str:
    """The name of the table."""
    return f"{stream.name}_state"


def view_of(stream: Stream) -> str:
    """The name of the view of the rows that are not deleted."""
    return f"{stream.name}_current"


class State:
    """Writes the state table of a stream, inside the caller's transactions.

    Args:
        copied: The columns of ``Latest.rows``, in their order.
    """

    def __init__(self, stream: Stream, copied: Sequence[str]) -> None:
        self._stream, self._copied = stream, tuple(copied)
        self._key = stream.keys
        self._others: tuple[str, ...] = ()
        self._texts: dict[str, str] = {}

    def write(self, connection: Connection, latest: Latest, *, in_order: bool = True) -> None:
        """Writes the last records of keys.

        Args:
            in_order: Whether these are the newest records of their keys, unless ``order_by`` says otherwise.

        Raises:
            NonRetryableError: A key has moved between partitions of the topic, or PostgreSQL refuses a row.
        """
        if not len(latest.rows) and not len(latest.tombstones):
            return
        self._load(connection, latest)
        written = self._upsert_latest(connection, latest)
        if not in_order or written < len(latest.rows):
            self._complete(connection, "{latest}")

    def expect_removals(self, connection: Connection) -> None:
        """Creates the table for the rows of the history that a replay deletes, see ``removed_columns``."""
        self._execute(
            connection,
            "CREATE TEMP TABLE {removed} ON COMMIT DROP AS SELECT {removed_columns} FROM {history} LIMIT 0",
        )

    @property
    def removed_columns(self) -> tuple[str, ...]:
        """The columns of the table for deleted rows."""
        return (*self._key, *COORDINATES)

    def replace(self, connection: Connection, latest: Latest) -> None:
        """Writes the last records of keys after a replay has deleted and landed rows of the history.

        The state of a key whose last record was deleted, and did not land again as that, comes from the history, and
        from the tombstones that the replay has read, which the history does not have.
        """
        self._load(connection, latest)
        self._remember_tombstones(connection, latest)
        stale = self._execute(
            connection,
            "CREATE TEMP TABLE {stale} ON COMMIT DROP AS SELECT {keys} FROM {removed} LIMIT 0; "
            "WITH gone AS (DELETE FROM {state} AS stored USING {removed} AS removed WHERE {same_key_removed} AND "
            "{same_record} AND NOT EXISTS (SELECT FROM {latest} AS newest WHERE {same_key_newest} AND {newer_newest}) "
            "RETURNING {stored_keys}) INSERT INTO {stale} SELECT * FROM gone",
        )
        self._upsert_latest(connection, latest)
        if stale:
            searched = "(SELECT history.* FROM {history} AS history JOIN {stale} USING ({keys}))"
            self._execute(connection, self._upsert(searched, from_history=True))
            if self._stream.deletes == TOMBSTONE:
                searched = "(SELECT read.* FROM {read_tombstones} AS read JOIN {stale} USING ({keys}))"
                self._execute(connection, self._upsert(searched, has_several=True))
            self._complete(connection, "{stale}")
        self._complete(connection, "{latest}")

    def _remember_tombstones(self, connection: Connection, latest: Latest) -> None:
        """Keeps tombstones for later transactions of the session, in which keys may fall back to older records."""
        if self._stream.deletes == TOMBSTONE:
            self._execute(
                connection, "CREATE TEMP TABLE IF NOT EXISTS {read_tombstones} (LIKE {state} INCLUDING DEFAULTS)"
            )
            latest.tombstones.send(connection, f"pg_temp.{READ_TOMBSTONES}", columns_of_tombstones(self._stream))

    def fill(self, connection: Connection) -> None:
        """Writes the last record of each key in the history.

        Raises:
            NonRetryableError: A key has moved between partitions of the topic, or PostgreSQL refuses a row.
        """
        if self._stream.order_by is None:
            self._require_no_moved(
                connection,
                "SELECT {keys}, min(kafka_partition), max(kafka_partition) FROM {history} WHERE {has_key} "
                "GROUP BY {keys}, kafka_incarnation HAVING min(kafka_partition) < max(kafka_partition) LIMIT 1",
            )
        self._execute(connection, self._upsert("{history}", from_history=True))
        self._complete(connection, "{state}")

    def _complete(self, connection: Connection, among: str) -> None:
        """Writes the values that the last changes of keys do not have, because they did not change.

        Each is that of the last change in the history that has it. If the history has none, the state keeps its value.

        Args:
            among: The relation with the keys.
        """
        if self._stream.changes is None:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                self._text(
                    connection,
                    "SELECT DISTINCT jsonb_array_elements_text(stored.change_unchanged) FROM {state} AS stored "
                    "WHERE stored.change_unchanged IS NOT NULL AND ({stored_keys}) IN "
                    f"(SELECT {{keys}} FROM {among})",
                )
            )
            names = sorted(name for (name,) in cursor.fetchall())
        for name in set(self._stream.changes.replaceable).intersection(names):
            self._execute(connection, _completion(name, among))

    def _load(self, connection: Connection, latest: Latest) -> None:
        self._execute(connection, "CREATE TEMP TABLE {latest} (LIKE {state} INCLUDING DEFAULTS) ON COMMIT DROP")
        try:
            latest.rows.send(connection, f"pg_temp.{LATEST}", self._copied)
            latest.tombstones.send(connection, f"pg_temp.{LATEST}", columns_of_tombstones(self._stream))
        except Exception as error:
            self._explain(error)
            raise

    def _upsert_latest(self, connection: Connection, latest: Latest) -> int:
        """Writes the last records of keys. Returns how many of them are newer than the state, or what it shows."""
        written = self._execute(connection, self._upsert("{latest}"))
        if written < len(latest.rows) + len(latest.tombstones) and self._stream.order_by is None:
            self._require_no_moved(
                connection,
                "SELECT {newest_keys}, stored.kafka_partition, newest.kafka_partition FROM {latest} AS newest "
                "JOIN {state} AS stored ON {same_key_newest} WHERE stored.kafka_partition <> newest.kafka_partition "
                "AND stored.kafka_incarnation = newest.kafka_incarnation LIMIT 1",
            )
        return written

    def _upsert(self, source: str, *, from_history: bool = False, has_several: bool = False) -> str:
        """The statement that writes rows of the state or of the history; the history has several for a key."""
        has_several = has_several or from_history
        distinct = "DISTINCT ON ({keys})" if has_several else ""
        order = "{keys}, {newest_first}" if has_several else "{keys}"
        gone = "{deletes}" if from_history else f"{DELETED} OR {{deletes}}"
        # In the order of the keys, so that two transactions cannot wait for each other's rows.
        return (
            "INSERT INTO {state} AS stored ({columns}, kafka_deleted) SELECT {values}, kafka_gone FROM "
            f"(SELECT {distinct} *, {gone} AS kafka_gone FROM {source} AS source WHERE {{has_key}} ORDER BY {order}) "
            "AS newest ON CONFLICT ({keys}) DO UPDATE SET {assignments} WHERE {newer_excluded}"
        )

    def _require_no_moved(self, connection: Connection, query: str) -> None:
        """Raises an error for the key that a query finds, with two partitions."""
        with connection.cursor() as cursor:
            cursor.execute(self._text(connection, query))
            found = cursor.fetchone()
        if found is not None:
            raise moved(self._stream, found[:-2], *found[-2:])

    def _execute(self, connection: Connection, statement: str) -> int:
        import psycopg2

        with connection.cursor() as cursor:
            try:
                cursor.execute(self._text(connection, statement))
            except psycopg2.Error as error:
                self._explain(error)
                raise
            return cursor.rowcount

    def _text(self, connection: Connection, statement: str) -> str:
        """A statement with its names."""
        if not self._texts:
            self._others = tuple(others(connection, self._stream, self._copied))
        if statement not in self._texts:
            self._texts[statement] = self._composed(statement).as_string(connection)
        return self._texts[statement]

    def _explain(self, error: Exception) -> None:
        """Raises the user's error for a row that PostgreSQL refuses."""
        if database_errors.is_of_rows(error):
            reason = " ".join(str(error).split())
            raise NonRetryableError(
                f"PostgreSQL refuses a row of landing.{table_of(self._stream)}, so stream {self._stream.name!r} has "
                f"stopped, and no record was skipped: {reason}.",
                f"Drop the constraint or trigger of landing.{table_of(self._stream)} that this names; constraints of "
                f"landing.{self._stream.name} make dead letters.",
                code=Code.STATE_REFUSED,
            ) from error

    def _composed(self, statement: str) -> sql.Composable:
        from psycopg2 import sql

        stream = self._stream
        written = [name for name in (*self._copied, *self._others) if name not in self._key]
        return sql.SQL(statement).format(
            state=sql.Identifier(SCHEMA, table_of(stream)),
            history=sql.Identifier(SCHEMA, stream.name),
            latest=sql.Identifier("pg_temp", LATEST),
            removed=sql.Identifier("pg_temp", REMOVED),
            stale=sql.Identifier("pg_temp", STALE),
            read_tombstones=sql.Identifier("pg_temp", READ_TOMBSTONES),
            keys=names_in(self._key),
            stored_keys=names_in(self._key, "stored"),
            newest_keys=names_in(self._key, "newest"),
            removed_columns=names_in(self.removed_columns),
            columns=names_in((*self._key, *written)),
            values=sql.SQL(", ").join(self._value(name) for name in (*self._key, *written)),
            deletes=deletes(stream),
            has_key=sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(n)) for n in self._key),
            same_key_removed=equal(self._key, "stored", "removed"),
            same_key_newest=equal(self._key, "stored", "newest"),
            same_record=equal(COORDINATES, "stored", "removed"),
            newer_newest=not_newer(stream, "stored", "newest"),
            newer_excluded=not_newer(stream, "stored", "excluded"),
            newest_first=newest_first(stream),
            assignments=sql.SQL(", ").join(map(self._assignment, (*written, DELETED))),
            older=not_newer(stream, "history", "stored"),
            same_key_history=equal(self._key, "stored", "history"),
            same_key_found=equal(self._key, "stored", "found"),
            newest_history=newest_first(stream, "history"),
        )

    def _assignment(self, name: str) -> sql.Composable:
        """How a newer record changes a column; one that the change does not have keeps its value."""
        from psycopg2 import sql

        text = "{0} = excluded.{0}"
        if self._stream.changes is not None and name in self._stream.changes.replaceable:
            text = "{0} = CASE WHEN excluded.change_unchanged ? {1} THEN stored.{0} ELSE excluded.{0} END"
        return sql.SQL(text).format(sql.Identifier(name), sql.Literal(name))

    def _value(self, name: str) -> sql.Composable:
        """A column of a row; null if the record deletes the key, unless the column says which record that is."""
        from psycopg2 import sql

        if self._stream.deletes is None or name in kept_of_deleted(self._stream):
            return sql.Identifier(name)
        return sql.SQL("CASE WHEN NOT kafka_gone THEN {} END").format(sql.Identifier(name))


def forget_tombstones(connection: Connection) -> None:
    """Drops the tombstones that a former replay has read in this session; commits."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{READ_TOMBSTONES}")
    connection.commit()


def others(connection: Connection, stream: Stream, copied: Sequence[str]) -> list[str]:
    """The columns that both tables have and that are not copied, such as those of removed fields.

    They are null in a new row, so a row of the state must not keep their values of an older record.
    """
    sql = queries.load("landing")
    present = {row.name for row in sql.read_columns(connection, stream=table_of(stream))}
    return [
        row.name
        for row in sql.read_columns(connection, stream=stream.name)
        if row.made_required is not None and row.name in present and row.name not in copied
    ]


def kept_of_deleted(stream: Stream) -> tuple[str, ...]:
    """The columns that a deleted row keeps."""
    order = () if stream.order_by is None else (stream.order_by,)
    of_record = (field.name for field in stream.record_fields)
    return tuple(dict.fromkeys((*stream.keys, *COORDINATES, stream.event_time, *of_record, *order)))


def columns_of_tombstones(stream: Stream) -> tuple[str, ...]:
    """The columns of ``Latest.tombstones``."""
    return (*COORDINATES, *(field.name for field in stream.record_fields), DELETED, *stream.keys)


def deletes(stream: Stream, of: str = "") -> sql.Composable:
    """The condition that an event, a row of the relation ``of``, deletes its key."""
    from psycopg2 import sql

    deletion = stream.deletion
    if deletion is None:
        return sql.SQL("false")
    values = sql.SQL(", ").join(map(sql.Literal, deletion.values))
    return sql.SQL("coalesce({} IN ({}), false)").format(names_in([deletion.field], of), values)


def not_newer(stream: Stream, one: str, other: str) -> sql.Composable:
    """The condition that one record is older than another record of its key, or the same.

    Args:
        one, other: The names of two relations with these records.
    """
    from psycopg2 import sql

    if stream.order_by is None:
        return sql.SQL(
            "({0}.kafka_incarnation < {1}.kafka_incarnation OR {0}.kafka_incarnation = {1}.kafka_incarnation "
            "AND {0}.kafka_partition = {1}.kafka_partition AND {0}.kafka_offset <= {1}.kafka_offset)"
        ).format(sql.SQL(one), sql.SQL(other))
    order = (stream.order_by, *COORDINATES)
    return sql.SQL("(({}) <= ({}))").format(names_in(order, one), names_in(order, other))


def moved(stream: Stream, key: Iterable[Any], *partitions: int) -> NonRetryableError:
    """The error for a key whose records are in two partitions of the topic."""
    shown = ", ".join(f"{name}={value}" for name, value in zip(stream.keys, key, strict=True))
    first, second = sorted(partitions)
    return NonRetryableError(
        f"Stream {stream.name!r}: the key {shown} is in the partitions {first} and {second} of the topic "
        f"{stream.topic!r}, so offsets do not say which of its records is newer. The stream has stopped; no record was "
        "skipped.",
        f"Name the field that orders the records of a key in the definition, such as {_order(stream)}, and unpause the "
        "DAG.",
        code=Code.KEY_MOVED,
    )


def _order(stream: Stream) -> str:
    """What could order the records of a stream."""
    if stream.changes is None:
        return f'order_by="{stream.event_time}"'
    certain = {field.name for field in stream.fields if not field.nullable}
    position = next(
        (name for name, there in stream.changes.sources.items() if there == "lsn" and name in certain), None
    )
    return f'order_by="{position}"' if position else 'order_by="lsn" and lsn: Annotated[int, Source("lsn")]'


def require_as_defined(connection: Connection, stream: Stream) -> None:
    """Raises UserError if the state is not kept as the definition says, because it has changed in the meantime.

    A drain need not call it: the change fences it. It must be called after the transaction has written to the history.
    """
    if rules_kept(connection, stream) != rules_wanted(stream):
        raise UserError(
            f"The definition of the current state of stream {stream.name!r} has changed. The last transaction "
            "was rolled back.",
            "Run the command again.",
            code=Code.DEFINITION_CHANGED,
        )


Rules = tuple[list[str], str | None, str | None]
"""The key, the order and the deletions by which a state is kept."""


def rules_kept(connection: Connection, stream: Stream) -> Rules | None:
    """How the state of a stream is kept; None if it is not."""
    found = queries.load("landing").read_current(connection, stream=stream.name)
    return None if found is None else (list(found.key), found.order_by, found.deletes)


def rules_wanted(stream: Stream) -> Rules | None:
    """How the definition says that the state is kept; None if it is not."""
    if not stream.current:
        return None
    deletion = stream.deletes
    return list(stream.keys), stream.order_by, deletion if isinstance(deletion, str | None) else repr(deletion)


def newest_first(stream: Stream, of: str = "") -> sql.Composable:
    """The order of the records of a key, the newest first."""
    from psycopg2 import sql

    order = () if stream.order_by is None else (stream.order_by,)
    return sql.SQL(", ").join(sql.SQL("{} DESC").format(names_in([name], of)) for name in (*order, *COORDINATES))


def _completion(name: str, among: str) -> str:
    """The statement that writes the values of one column that the last changes of keys do not have."""
    column = '"' + name.replace('"', '""').replace("{", "{{").replace("}", "}}") + '"'
    text = "'" + name.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"
    return (
        f"UPDATE {{state}} AS stored SET {column} = found.{column} FROM (SELECT DISTINCT ON ({{stored_keys}}) "
        f"{{stored_keys}}, history.{column} FROM {{state}} AS stored JOIN {{history}} AS history ON "
        f"{{same_key_history}} AND {{older}} WHERE stored.change_unchanged ? {text} AND ({{stored_keys}}) IN "
        f"(SELECT {{keys}} FROM {among}) AND NOT coalesce(history.change_unchanged ? {text}, false) "
        f"ORDER BY {{stored_keys}}, {{newest_history}}) AS found WHERE {{same_key_found}}"
    )


def names_in(names: Iterable[str], of: str = "") -> sql.Composable:
    """Columns, of a relation if there is more than one."""
    from psycopg2 import sql

    return sql.SQL(", ").join(sql.Identifier(of, name) if of else sql.Identifier(name) for name in names)


def equal(names: Iterable[str], left: str, right: str) -> sql.Composable:
    """The condition that two relations have equal values in some columns."""
    from psycopg2 import sql

    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, name)) for name in names
    )
