"""Every SQL query of Millrace, one file for each domain, loaded with aiosql for psycopg2.

``signatures/`` gives each query's parameters and rows their types. After a change of a query, write it again with
``./millrace python .ci/signatures`` while the platform is up; a test compares it with the database.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

if TYPE_CHECKING:
    from include.warehouse.queries.signatures.actions import Actions
    from include.warehouse.queries.signatures.demo import Demo
    from include.warehouse.queries.signatures.expectations import Expectations
    from include.warehouse.queries.signatures.landing import Landing
    from include.warehouse.queries.signatures.metadata import Metadata
    from include.warehouse.queries.signatures.monitoring import Monitoring
    from include.warehouse.queries.signatures.orphans import Orphans
    from include.warehouse.queries.signatures.pages import Pages
    from include.warehouse.queries.signatures.platform import Platform
    from include.warehouse.queries.signatures.position import Position
    from include.warehouse.queries.signatures.registry import Registry
    from include.warehouse.queries.signatures.retention import Retention
    from include.warehouse.queries.signatures.schema import Schema
    from include.warehouse.queries.signatures.training import Training
    from include.warehouse.queries.signatures.verification import Verification

DIRECTORY = Path(__file__).parent


@overload
def load(domain: Literal["actions"]) -> Actions: ...
@overload
def load(domain: Literal["demo"]) -> Demo: ...
@overload
def load(domain: Literal["expectations"]) -> Expectations: ...
@overload
def load(domain: Literal["landing"]) -> Landing: ...
@overload
def load(domain: Literal["metadata"]) -> Metadata: ...
@overload
def load(domain: Literal["monitoring"]) -> Monitoring: ...
@overload
def load(domain: Literal["orphans"]) -> Orphans: ...
@overload
def load(domain: Literal["pages"]) -> Pages: ...
@overload
def load(domain: Literal["platform"]) -> Platform: ...
@overload
def load(domain: Literal["position"]) -> Position: ...
@overload
def load(domain: Literal["registry"]) -> Registry: ...
@overload
def load(domain: Literal["retention"]) -> Retention: ...
@overload
def load(domain: Literal["schema"]) -> Schema: ...
@overload
def load(domain: Literal["training"]) -> Training: ...
@overload
def load(domain: Literal["verification"]) -> Verification: ...
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

    rows = importlib.import_module(f"include.warehouse.queries.signatures.{domain}").ROWS

    class NamedRows(PyFormatAdapter):
        """Gives each row the type of its query's rows."""

        def select(
            self, conn: Any, query_name: str, sql: str, parameters: Any, record_class: Any = None
        ) -> Generator[Any, None, None]:
            yield from map(rows[query_name]._make, super().select(conn, query_name, sql, parameters))

        def select_one(
            self, conn: Any, query_name: str, sql: str, parameters: Any, record_class: Any = None
        ) -> tuple[Any, ...] | None:
            row = super().select_one(conn, query_name, sql, parameters)  # type: ignore[no-untyped-call]
            return None if row is None else cast(tuple[Any, ...], rows[query_name]._make(row))

    return aiosql.from_path(DIRECTORY / f"{domain}.sql", NamedRows)
