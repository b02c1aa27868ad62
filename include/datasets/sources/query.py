"""The source `Query`: a query on the warehouse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.datasets.sources.source import Scan, Source
from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.errors import NonRetryableError, UserError

if TYPE_CHECKING:
    import psycopg2
    import pyarrow as pa

    from include.warehouse.arrow import Column


@dataclass(frozen=True)
class Query(Source):
    """A query on the warehouse, such as one on the tables where streams land.

    The columns have the types that docs/definitions.md lists for PostgreSQL's. Columns that the definition does not
    name may have any type.

    Attributes:
        sql: A SELECT. It can contain ``%(start)s`` and ``%(end)s``, the bounds of the version's interval: each a
            timestamptz or NULL. Every other ``%`` is the query's own.

    Raises:
        InvalidDefinition: The SQL is not a text.
    """

    sql: str

    def __post_init__(self) -> None:
        if not isinstance(self.sql, str):
            raise InvalidDefinition("source", f"the query {self.sql!r} is not a text.", 'Write Query("SELECT …").')

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa

        found = _Found(self._columns(start, end))
        return pa.Table.from_batches(found.batches(found.schema.names), found.schema)

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """All rows, in memory."""
        yield _Found(self._columns(start, end))

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """The columns, as PostgreSQL describes them without running the query."""
        found = _Found(self._columns(None, None, described=True))
        found.certain = "types"
        yield found

    def _columns(self, start: datetime | None, end: datetime | None, described: bool = False) -> list[Column]:
        import psycopg2

        from include.warehouse import arrow
        from include.warehouse.connection import connected

        with connected("millrace source") as connection, connection.cursor() as cursor:
            connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
            # Not cursor.execute(sql, parameters): every other % of the query would need a second one.
            bounds = {"%(start)s": start, "%(end)s": end}
            values = {mark: cursor.mogrify("%s", (bound,)).decode() for mark, bound in bounds.items()}
            statement = re.sub(r"%\((?:start|end)\)s", lambda mark: values[mark[0]], self.sql)
            try:
                return arrow.describe(cursor, statement) if described else arrow.run(cursor, statement)
            except psycopg2.OperationalError as error:
                # A restart, a lock or a time limit: a retry may succeed.
                raise UserError(
                    f"PostgreSQL ended the source's query: {_in_one_line(error)}.",
                    "Try again.",
                    code=Code.QUERY_INTERRUPTED,
                ) from error
            except psycopg2.Error as error:
                raise NonRetryableError(
                    f"PostgreSQL refuses the source's query: {_in_one_line(error)}.",
                    "Correct its SQL.",
                    code=Code.QUERY_FAILED,
                ) from error

    def __str__(self) -> str:
        return " ".join(self.sql.split())


def _in_one_line(error: psycopg2.Error) -> str:
    """PostgreSQL's message, hint included, without the line that marks the position."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line.strip("^")).rstrip(".")


class _Found(Scan):
    """The rows of a query. Each column is converted when it is first read."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import pyarrow as pa

        self._columns = {column.name: column for column in columns}
        self.schema = pa.schema([pa.field(column.name, column.type) for column in columns])
        self.unfit = {column.name: column.database for column in columns if not column.fit}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for arrays in zip(*(self._columns[name].pieces() for name in columns), strict=True):
            yield pa.RecordBatch.from_arrays(list(arrays), names=list(columns))
