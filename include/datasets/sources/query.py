"""A query on the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.datasets.sources.source import Source
from include.errors import LastingError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Query(Source):
    """A query on the warehouse, such as one on the tables where streams land.

    Attributes:
        sql: A SELECT, which may use ``%(start)s`` and ``%(end)s``: the bounds of the rows wanted, or NULL.
    """

    sql: str

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pandas as pd
        import psycopg2
        import pyarrow as pa

        from include.warehouse.connection import connected

        with connected("millrace source") as connection, connection.cursor() as cursor:
            connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
            # Only these two: any other % in the query is the user's own.
            bounds = {name: cursor.mogrify("%s", (bound,)).decode() for name, bound in (("start", start), ("end", end))}
            statement = self.sql.replace("%(start)s", bounds["start"]).replace("%(end)s", bounds["end"])
            try:
                cursor.execute(statement)
            except psycopg2.Error as error:
                raise LastingError(f"The source's query fails: {str(error).strip()}.", "Correct its SQL.") from error
            names = [column.name for column in cursor.description or ()]
            frame = pd.DataFrame.from_records(cursor.fetchall(), columns=names, coerce_float=True)
        return pa.Table.from_pandas(frame, preserve_index=False)

    def __str__(self) -> str:
        return " ".join(self.sql.split())
