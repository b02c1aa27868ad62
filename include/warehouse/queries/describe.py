"""The texts of ``signatures/``: the types of all queries, as PostgreSQL describes them without running them.

PostgreSQL knows types but not whether a value can be null. A query's comment says so in a line of its own: ``Null:``
with the parameters and columns that can be, ``name[]`` for the elements of an array; ``Always a row.`` for a query of
one row or value that never returns None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

TYPES = {
    "bigint": "int",
    "boolean": "bool",
    "bytea": "memoryview",
    "character varying": "str",
    "double precision": "float",
    "integer": "int",
    "interval": "timedelta",
    "jsonb": "Any",
    "name": "str",
    "numeric": "Decimal",
    "regclass": "str",
    "smallint": "int",
    "text": "str",
    "timestamp with time zone": "datetime",
    "void": "None",
}
# psycopg2 takes more types for a parameter than it returns.
PARAMETER_TYPES = {"bytea": "Bytes", "jsonb": "str", "interval": "timedelta | str", "numeric": "Decimal | int"}


def _head(domain: str, body: str) -> str:
    imports = [
        _import("collections.abc", ("Iterator", "Sequence"), body),
        _import("datetime", ("datetime", "timedelta"), body),
        _import("decimal", ("Decimal",), body),
        _import("typing", ("TYPE_CHECKING", "Any", "NamedTuple", "Protocol"), "TYPE_CHECKING " + body),
    ]
    about = f'"""The parameters and rows of the queries of ``{domain}.sql``; written by ``.ci/signatures``."""'
    lines = [about, "", "from __future__ import annotations", "", *filter(None, imports), "", "if TYPE_CHECKING:"]
    lines += ["    from psycopg2.extensions import connection as Connection"]
    lines += ["", "    Bytes = bytes | bytearray | memoryview"] if re.search(r"\bBytes\b", body) else []
    return "\n".join(lines) + "\n"


def _import(module: str, names: Sequence[str], body: str) -> str:
    used = [name for name in names if re.search(rf"\b{name}\b", body)]
    return f"from {module} import {', '.join(used)}" if used else ""


class Query(NamedTuple):
    """A query as its SQL file has it."""

    name: str
    parameters: tuple[str, ...]
    mark: str
    comment: str
    sql: str

    @property
    def row(self) -> str:
        """The name of the type of its rows."""
        return "".join(word.capitalize() for word in self.name.split("_")) + "Row"

    @property
    def nullable(self) -> set[str]:
        """The parameters, columns and, as ``name[]``, elements of arrays that can be null."""
        found = re.search(r"^Null: (.*)\.$", self.comment, re.MULTILINE)
        return set(found[1].split(", ")) if found else set()

    @property
    def has_row(self) -> bool:
        """Whether it always returns a row."""
        return "Always a row." in self.comment


def read(domain: str) -> list[Query]:
    """The queries of a domain's file, in its order."""
    text = (queries.DIRECTORY / f"{domain}.sql").read_text()
    found = []
    for part in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.splitlines()
        declared = re.fullmatch(r"(\w+)\((.*)\)(\W?)", head)
        assert declared, head
        comment = "\n".join(line[3:] for line in lines if line.startswith("-- "))
        sql = "\n".join(line for line in lines if not line.lstrip().startswith("--")).rstrip().rstrip(";")
        found.append(Query(declared[1], tuple(filter(None, declared[2].split(", "))), declared[3], comment, sql))
    return found


def module(connection: Connection, domain: str) -> str:
    """The text of a domain's module in ``signatures/``.

    Args:
        connection: To the database that the domain's queries are for.
    """
    rows, methods, names = [], [], []
    for query in read(domain):
        parameters, columns = _described(connection, query)
        if query.mark in ("", "^"):
            rows.append(_row(query, columns))
            names.append(f'    "{query.name}": {query.row},')
        methods.append(_method(query, parameters, columns))
    protocol = "\n".join([f"class {domain.capitalize()}(Protocol):", *methods])
    table = "\n".join(["ROWS: dict[str, Any] = {", *names, "}"])
    body = "\n\n\n".join([*rows, protocol, table]) + "\n"
    return f"{_head(domain, body)}\n\n{body}"


def _described(connection: Connection, query: Query) -> tuple[list[str], list[tuple[str, str]]]:
    """The PostgreSQL types of a query's parameters, and the names and types of its columns."""
    text = query.sql
    for number, name in enumerate(query.parameters, 1):
        text = re.sub(rf"(?<!:):{name}\b", f"${number}", text)
    with connection.cursor() as cursor:
        cursor.execute(f"PREPARE described AS {text}")
        cursor.execute("SELECT parameter_types::text[], result_types::text[] FROM pg_prepared_statements")
        ((parameters, results),) = cursor.fetchall()
        cursor.execute("DEALLOCATE described")
        if not results:
            return parameters, []
        if returning := re.search(r"\bRETURNING (?:\w+\.)?(\w+)$", text):
            return parameters, [(returning[1], results[0])]
        cursor.execute(
            "DECLARE described NO SCROLL CURSOR FOR " + re.sub(r"\$\d+", "NULL", text).replace("%", "%%"), ()
        )
        cursor.execute("FETCH FORWARD 0 FROM described")
        columns = [column.name for column in cursor.description or ()]
        cursor.execute("CLOSE described")
    return parameters, list(zip(columns, results, strict=True))


def _row(query: Query, columns: Sequence[tuple[str, str]]) -> str:
    fields = [f"    {name}: {_type(query, name, declared)}" for name, declared in columns]
    return "\n".join([f"class {query.row}(NamedTuple):", *fields])


def _method(query: Query, parameters: Sequence[str], columns: Sequence[tuple[str, str]]) -> str:
    match query.mark:
        case "!":
            returned = "int"
        case "$":
            ((name, declared),) = columns
            returned = _type(query, name, declared) + ("" if query.has_row or declared == "void" else " | None")
        case "^":
            returned = query.row + ("" if query.has_row else " | None")
        case _:
            returned = f"Iterator[{query.row}]"
    declared_parameters = [
        f"{name}: {_type(query, name, declared, PARAMETER_TYPES, 'Sequence')}"
        for name, declared in zip(query.parameters, parameters, strict=True)
    ]
    signature = ", ".join(
        ["self", "connection: Connection", *(["*"] if declared_parameters else []), *declared_parameters]
    )
    return f"    def {query.name}({signature}) -> {returned}: ..."


def _type(query: Query, name: str, declared: str, more: dict[str, str] | None = None, array: str = "list") -> str:
    types = TYPES | (more or {})
    if declared.endswith("[]"):
        element = types[declared.removesuffix("[]")] + (" | None" if f"{name}[]" in query.nullable else "")
        found = f"{array}[{element}]"
    else:
        found = types[declared]
    return f"{found} | None" if name in query.nullable else found
