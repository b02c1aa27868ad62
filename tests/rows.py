"""Rows of queries against their types: PostgreSQL does not say what can be null, so the tests' own rows show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from include.warehouse import queries


@dataclass(frozen=True)
class Checked:
    """Makes rows of a query as its type does, and refuses a value that the type does not have."""

    query: str
    make: Callable[[Iterable[Any]], Any]
    types: dict[str, Any]

    def _make(self, values: Iterable[Any]) -> Any:
        row = self.make(values)
        for (name, declared), value in zip(self.types.items(), row, strict=True):
            assert _fits(declared, value), f"{self.query}: {name} is {value!r}, not {declared}"
        return row


def check_all() -> None:
    """Lets every query of this process, and of those that are forked from it, check its rows."""
    for file in queries.DIRECTORY.glob("*.sql"):
        rows = import_module(f"include.warehouse.queries.signatures.{file.stem}").ROWS
        for name, row in rows.items():
            rows[name] = Checked(f"{file.stem}.{name}", row._make, get_type_hints(row))


def _fits(declared: Any, value: object) -> bool:
    if declared is Any:
        return True
    if isinstance(declared, UnionType):
        return any(_fits(one, value) for one in get_args(declared))
    if get_origin(declared) is list:
        return isinstance(value, list) and all(_fits(get_args(declared)[0], item) for item in value)
    return isinstance(value, NoneType if declared is None else declared)
