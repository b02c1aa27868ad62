"""Orphans: data of datasets and streams whose definitions were removed or renamed. Millrace never deletes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.datasets.definition import TOPIC_PREFIX
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Orphan:
    """A dataset or stream without a definition.

    Attributes:
        kind: ``dataset`` or ``stream``.
        name: The name that its definition gave it.
        holds: The data that exists, in words.
    """

    kind: str
    name: str
    holds: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {', '.join(self.holds)}"


def streams(connection: Connection, named: Collection[str]) -> Iterator[Orphan]:
    """The orphaned streams: those in the warehouse that are not among the ``named`` ones."""
    for name, tables, landed, kept_aside, topics in queries.load("orphans").orphaned_streams(
        connection, named=list(named)
    ):
        holds = [f"table landing.{table}" for table in tables]
        holds += [f"{_counted(landed, 'record')} landed"] if landed else []
        holds += [f"{_counted(kept_aside, 'dead letter')}"] if kept_aside else []
        holds += [f"positions in topic {topic}" for topic in topics]
        yield Orphan("stream", name, tuple(holds))


def datasets(connection: Connection, named: Collection[str], topics: Collection[str]) -> Iterator[Orphan]:
    """The orphaned datasets: those in the warehouse or among the ``topics`` that are not among the ``named`` ones."""
    found = {name: [f"topic {TOPIC_PREFIX}{name}"] for name in _of_datasets(topics) if name not in named}
    for name, versions, runs, changes in queries.load("orphans").orphaned_datasets(connection, named=list(named)):
        counts = ((versions, "version"), (runs, "training run"), (changes, "champion"))
        found.setdefault(name, []).extend(_counted(count, what) for count, what in counts if count)
    for name, holds in sorted(found.items()):
        yield Orphan("dataset", name, tuple(holds))


def _of_datasets(topics: Collection[str]) -> list[str]:
    return [topic.removeprefix(TOPIC_PREFIX) for topic in topics if topic.startswith(TOPIC_PREFIX)]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
