"""The indexes of a stream's table that its definition declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from include.definitions import InvalidDefinition
from include.streams.field import Field

MAX_COLUMNS = 32
"""PostgreSQL's limit for one index."""

BTREE, BRIN = "btree", "brin"
_KAFKA = ("kafka_incarnation", "kafka_partition", "kafka_offset")
# PostgreSQL's documentation, CREATE TABLE, "Storage Parameters"; those of a table's TOAST table have the prefix toast.
_AUTOVACUUM = (
    *("enabled", "vacuum_threshold", "vacuum_max_threshold", "vacuum_scale_factor", "vacuum_insert_threshold"),
    *("vacuum_insert_scale_factor", "analyze_threshold", "analyze_scale_factor", "vacuum_cost_delay"),
    *("vacuum_cost_limit", "freeze_min_age", "freeze_max_age", "freeze_table_age", "multixact_freeze_min_age"),
    *("multixact_freeze_max_age", "multixact_freeze_table_age"),
)
_VACUUM = (*(f"autovacuum_{name}" for name in _AUTOVACUUM), "vacuum_index_cleanup", "vacuum_truncate")
STORAGE = frozenset(
    (
        *("fillfactor", "toast_tuple_target", "parallel_workers", "log_autovacuum_min_duration"),
        *_VACUUM,
        *(f"toast.{name}" for name in _VACUUM),
    )
)
"""The storage parameters that a definition may set."""


@dataclass(frozen=True)
class Index:
    """An index of a stream's table.

    Attributes:
        columns: Its columns, in order.
        method: ``btree`` or ``brin``.
    """

    columns: tuple[str, ...]
    method: str = BTREE

    def name_for(self, stream: str) -> str:
        """Its name. The same index always has the same name, which fits into PostgreSQL's 63 bytes."""
        return f"{stream}_{crc32(repr((self.method, self.columns)).encode()):08x}_ix"

    def __str__(self) -> str:
        return (
            f"the index on {', '.join(self.columns)}"
            if self.method == BTREE
            else f"the BRIN index on {self.columns[0]}"
        )


class Indexed(Protocol):
    """What a stream's definition says about its indexes and its storage."""

    @property
    def indexes(self) -> tuple[str | tuple[str, ...], ...]:
        """The columns of each index."""

    @property
    def brin(self) -> bool:
        """Whether the event time has a BRIN index."""

    @property
    def storage(self) -> Mapping[str, str | int | float | bool]:
        """Storage parameters of partitions."""

    @property
    def event_time(self) -> str:
        """The event time."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The event's fields."""

    @property
    def record_fields(self) -> tuple[Field, ...]:
        """The columns that a row has from its record."""


def indexes_of(stream: Indexed) -> tuple[Index, ...]:
    """The indexes that a definition declares."""
    found = [Index((each,) if isinstance(each, str) else tuple(each)) for each in stream.indexes]
    return (*found, *([Index((stream.event_time,), BRIN)] if stream.brin else []))


def check_indexes(stream: Indexed) -> None:
    """Checks ``indexes``, ``brin`` and ``storage`` of a stream.

    Raises:
        InvalidDefinition: One of them has an invalid value.
    """
    if not isinstance(stream.indexes, tuple | list) or not all(
        isinstance(each, str | tuple) for each in stream.indexes
    ):
        raise InvalidDefinition(
            "indexes",
            f"{stream.indexes!r} is not a tuple of fields.",
            'Write one entry for each index, such as ("user",) or ("user", ("country", "ts")).',
        )
    if not isinstance(stream.brin, bool):
        raise InvalidDefinition("brin", f"{stream.brin!r} is not True or False.", "Write brin=True.")
    found = indexes_of(stream)
    if len(set(found)) < len(found):
        raise InvalidDefinition("indexes", "it has an index twice.", "Write each once.")
    for index in found:
        _check_index(index, {field.name: field for field in (*stream.record_fields, *stream.fields)})
    _check_storage(stream.storage)


def _check_index(index: Index, fields: Mapping[str, Field]) -> None:
    known = ", ".join((*fields, *_KAFKA))
    if not 0 < len(index.columns) <= MAX_COLUMNS or len(set(index.columns)) < len(index.columns):
        raise InvalidDefinition(
            "indexes",
            f"{index.columns!r} does not name 1 to {MAX_COLUMNS} different fields.",
            f"Name some of {known}.",
        )
    for name in index.columns:
        if name not in fields and name not in _KAFKA:
            raise InvalidDefinition("indexes", f"the event has no field {name!r}.", f"Name some of {known}.")
        if name in fields and fields[name].sql == "jsonb":
            raise InvalidDefinition(
                "indexes",
                f"the field {name!r} is jsonb, for which no index of this kind is useful.",
                "Declare a field of its own for the value that you search for. Or create an index yourself, such as a "
                "GIN index; Millrace leaves it alone.",
            )


def _check_storage(storage: object) -> None:
    if not isinstance(storage, Mapping):
        raise InvalidDefinition("storage", f"{storage!r} is not a dict.", 'Write such as {"fillfactor": 90}.')
    for name, value in storage.items():
        if name not in STORAGE:
            raise InvalidDefinition(
                "storage",
                f"{name!r} is not a storage parameter of PostgreSQL's tables.",
                'Write such as "fillfactor" or "autovacuum_vacuum_scale_factor".',
            )
        if not isinstance(value, str | int | float):
            raise InvalidDefinition(
                "storage", f"{value!r} is not a value for {name}.", "Write a number, text or boolean."
            )
