"""Writes the reference of the schema ``millrace`` as Markdown, from the comments in the database.

``python -m include.warehouse.schema > docs/schema.md`` updates the page in the docs; a test checks that it is current.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_HEAD = """# The schema of the warehouse

Versions, runs, champions and positions are in the schema `millrace`: read it with `./millrace psql`, or connect any
client to it. The tables of streams are in the schema `landing`; [definitions.md](definitions.md) says which columns
they have. This page is written by `./millrace python -m include.warehouse.schema`.
"""


def markdown(connection: Connection) -> str:
    """The page: every table and view with its comment, columns, types and their comments."""
    relations: dict[tuple[str, str, str], list[str]] = {}
    for kind, relation, about, column, declared, comment in queries.load("schema").documented(connection):
        rows = relations.setdefault((kind, relation, about or ""), [])
        rows.append(f"| `{column}` | {declared} | {(comment or '').replace('|', chr(92) + '|')} |")
    parts = [_HEAD]
    for heading, wanted in (("Tables", "table"), ("Views", "view")):
        parts.append(f"## {heading}\n")
        for (kind, relation, about), rows in relations.items():
            if kind == wanted:
                table = "\n".join(["| column | type | |", "|---|---|---|", *rows])
                parts.append(f"### millrace.{relation}\n\n{about}.\n\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with connected("millrace schema") as warehouse:
        print(markdown(warehouse), end="")
