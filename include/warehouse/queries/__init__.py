"""Every SQL query of Millrace, one file for each domain, loaded with aiosql for psycopg2.

``signatures.py`` gives each query's parameters and rows their types. After a change of a query, write it again with
``./millrace python .ci/signatures`` while the platform is up; a test compares it with the database.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

if TYPE_CHECKING:
    from include.warehouse.queries import signatures

DIRECTORY = Path(__file__).parent


@overload
def load(domain: Literal["demo"]) -> signatures.Demo: ...
@overload
def load(domain: Literal["landing"]) -> signatures.Landing: ...
@overload
def load(domain: Literal["metadata"]) -> signatures.Metadata: ...
@overload
def load(domain: Literal["orphans"]) -> signatures.Orphans: ...
@overload
def load(domain: Literal["platform"]) -> signatures.Platform: ...
@overload
def load(domain: Literal["position"]) -> signatures.Position: ...
@overload
def load(domain: Literal["registry"]) -> signatures.Registry: ...
@overload
def load(domain: Literal["retention"]) -> signatures.Retention: ...
@overload
def load(domain: Literal["schema"]) -> signatures.Schema: ...
@overload
def load(domain: Literal["training"]) -> signatures.Training: ...
@overload
def load(domain: Literal["verification"]) -> signatures.Verification: ...
def load(domain: str) -> Any:
    """The queries of ``<domain>.sql`` as functions ``query(connection, **parameters)``, named as in the file.

    The mark behind a query's name says what it returns: a number of rows (``!``), one value (``$``) or one row (``^``),
    None if there is none, or else an iterator over its rows, which are named tuples.
    """
    return _loaded(domain)


def load_all() -> None:
    """Loads the queries of every domain, for processes that are forked from this one."""
    for file in DIRECTORY.glob("*.sql"):
        _loaded(file.stem)


@cache
def _loaded(domain: str) -> Any:
    import aiosql
    from aiosql.adapters.pyformat import PyFormatAdapter

    from include.warehouse.queries.signatures import ROWS

    class NamedRows(PyFormatAdapter):
        """Gives each row the type that ``signatures.py`` has for its query."""

        def select(
            self, conn: Any, query_name: str, sql: str, parameters: Any, record_class: Any = None
        ) -> Generator[Any, None, None]:
            yield from map(ROWS[domain, query_name]._make, super().select(conn, query_name, sql, parameters))

        def select_one(
            self, conn: Any, query_name: str, sql: str, parameters: Any, record_class: Any = None
        ) -> tuple[Any, ...] | None:
            row = super().select_one(conn, query_name, sql, parameters)
            return None if row is None else cast(tuple[Any, ...], ROWS[domain, query_name]._make(row))

    return aiosql.from_path(DIRECTORY / f"{domain}.sql", NamedRows)
