"""The parameters and rows of the queries of ``schema.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class DocumentedRow(NamedTuple):
    kind: str
    relation: str
    about: str | None
    name: str
    type: str
    comment: str | None


class Schema(Protocol):
    def documented(self, connection: Connection) -> Iterator[DocumentedRow]: ...


ROWS: dict[str, Any] = {
    "documented": DocumentedRow,
}
