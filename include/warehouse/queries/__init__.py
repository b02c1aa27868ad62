"""Every SQL query of Millrace, one file for each domain, loaded with aiosql for psycopg2."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


@cache
def load(domain: str) -> Any:
    """The queries of ``<domain>.sql`` as functions ``query(connection, **parameters)``, named as in the file."""
    import aiosql

    return aiosql.from_path(Path(__file__).parent / f"{domain}.sql", "psycopg2", mandatory_parameters=False)


def load_all() -> None:
    """Loads the queries of every domain, for processes that are forked from this one."""
    for file in Path(__file__).parent.glob("*.sql"):
        load(file.stem)
