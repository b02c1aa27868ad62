"""Debezium's change events: the structs that decode them for the struct of a row, and the columns about the change."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
from msgspec import UNSET, Meta, UnsetType, inspect

from include.definitions import InvalidDefinition
from include.streams.field import TIMESTAMP, Field, extra_of, fields_of
from include.streams.times import Epoch

DEBEZIUM = "debezium"
"""As ``envelope``: each value is a change event of Debezium, and the event is a row of its table."""

OPERATION, TIME, UNCHANGED = "change_op", "change_time", "change_unchanged"
DELETE, TRUNCATE, MESSAGE = "d", "t", "m"
DELETION = (OPERATION, DELETE)
"""What ``deletes`` is for change events."""

PLACEHOLDER = "__debezium_unavailable_value"
"""What Debezium writes for a value that has not changed and that the database's log does not have."""

_MICROSECONDS = Epoch("microseconds", 1_000_000, is_certain=True)
OWN = (
    Field(OPERATION, "text", False, "The operation: c insert, u update, d delete, r row of a snapshot, t truncate"),
    Field(TIME, TIMESTAMP, False, "When the source made the change", notation=_MICROSECONDS),
    Field(UNCHANGED, "jsonb", True, "The columns whose values the change does not have, because they did not change"),
)
_SOURCE = "millrace_source"
# No column of a source has such a name: Kafka Connect does not allow it.
_HIDDEN = "\x7fmillrace "


def Source(name: str) -> Meta:
    """A field with a value of the block ``source`` of change events: ``Annotated[int, Source("lsn")]``.

    Args:
        name: The name of the value, such as ``lsn``, ``txId`` or ``table``.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{name!r} is not the name of a value of the block source")
    return Meta(extra={_SOURCE: name})


@dataclass(frozen=True)
class Changes:
    """How change events of rows are decoded.

    Args:
        row: The struct of a row.
        keys: The fields that are never null, also of a deleted row.
    """

    row: type[msgspec.Struct]
    keys: tuple[str, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the structs that were made, which no module has."""
        return Changes, (self.row, self.keys)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns about the change, and those of the row, of which only the key is always known."""
        return (*OWN, *(replace(field, nullable=self._is_nullable(field)) for field in fields_of(self.row)))

    @cached_property
    def sources(self) -> dict[str, str]:
        """The fields of the row that come from the block ``source``, with the names that they have there."""
        return {name: found for name, declared in _types(self.row).items() if (found := _source(declared))}

    @cached_property
    def replaceable(self) -> tuple[str, ...]:
        """The fields that may be unchanged and unknown: all columns of the row, without the key."""
        return tuple(name for name in self.row.__struct_fields__ if name not in self.keys and name not in self.sources)

    @cached_property
    def after(self) -> type[msgspec.Struct]:
        """The struct of the row after a change, with room for what is known of the change."""
        return self._row({})

    @cached_property
    def before(self) -> type[msgspec.Struct]:
        """The struct of the row before a change, of which Debezium may know the key only."""
        hints = _hints(self.row)
        return self._row(
            {
                name: hints[name] if _has_raw(hints[name]) else hints[name] | None
                for name in self.row.__struct_fields__
                if name not in self.keys and name not in self.sources
            }
        )

    @cached_property
    def event(self) -> type[msgspec.Struct]:
        """The struct of a change event, as schema registries describe it."""
        return msgspec.defstruct(f"ChangeOf{self.row.__name__}", self._parts())

    @cached_property
    def value(self) -> type[msgspec.Struct]:
        """The struct of a value in JSON, which may have the change event in the field ``payload``, with its schema."""
        payload: Any = self.event | None | UnsetType
        return msgspec.defstruct(
            f"ChangeOf{self.row.__name__}",
            [*self._parts(), ("payload", payload, UNSET), ("schema", msgspec.Raw, msgspec.Raw())],
        )

    def _is_nullable(self, field: Field) -> bool:
        return field.nullable if field.name in self.sources else field.name not in self.keys

    def _parts(self) -> list[Any]:
        hints = _hints(self.row)
        stamps = [(name, int | None, None) for name in ("ts_us", "ts_ms") if name not in self.sources.values()]
        asked: dict[str, Any] = {}
        for name, there in self.sources.items():
            asked.setdefault(there, hints[name] | None)
        source = msgspec.defstruct("Source", [*stamps, *((there, each, None) for there, each in asked.items())])
        rows: list[Any] = [("before", self.before | None, None), ("after", self.after | None, None)]
        return [
            *rows,
            ("source", source | None, None),
            ("op", str | None, None),
            ("ts_us", int | None, None),
            ("ts_ms", int | None, None),
        ]

    def _row(self, nullable: Mapping[str, Any]) -> type[msgspec.Struct]:
        hints, names = _hints(self.row), _names(self.row)
        fields: list[Any] = [
            (name, declared, msgspec.field(default=None, name=names[name])) for name, declared in nullable.items()
        ]
        # Decoding leaves these fields as they are.
        fields += [
            (name, hints[name] | None, msgspec.field(default=None, name=_HIDDEN + name)) for name in self.sources
        ]
        fields += [(field.name, Any, msgspec.field(default=None, name=_HIDDEN + field.name)) for field in OWN]
        return msgspec.defstruct(
            self.row.__name__, fields, bases=(self.row,), kw_only=True, frozen=False, module=self.row.__module__
        )


def check_row(row: type[msgspec.Struct], keys: tuple[str, ...]) -> None:
    """Checks the struct of a row.

    Raises:
        InvalidDefinition: Change events cannot be decoded for it.
    """
    taken = {field.name for field in OWN}
    for name in row.__struct_fields__:
        if name in taken:
            raise InvalidDefinition(
                f"event.{name}",
                "the stream has a column of this name about the change.",
                'Rename the field; msgspec.field(name="…") keeps the name in the JSON.',
            )
    info = inspect.type_info(row)
    assert isinstance(info, inspect.StructType)
    if info.array_like or info.tag_field is not None:
        raise InvalidDefinition(
            "event",
            f"{row.__name__} is array_like or has a tag, and a row of a table is neither.",
            "Omit these options.",
        )
    for field in Changes(row, keys).sources:
        if field in keys:
            raise InvalidDefinition(
                "key",
                f"the field {field!r} is not of the row but of the change.",
                "Name fields of the row's primary key.",
            )


def _source(declared: inspect.Type) -> str:
    """The name of a value of the block ``source``; empty for a field of the row."""
    return str(extra_of(declared).get(_SOURCE, ""))


def _has_raw(hint: Any) -> bool:
    return hint is msgspec.Raw or any(map(_has_raw, typing.get_args(hint)))


def _types(row: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    info = inspect.type_info(row)
    assert isinstance(info, inspect.StructType)
    return {field.name: field.type for field in info.fields}


def _hints(row: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(row, include_extras=True)


def _names(row: type[msgspec.Struct]) -> dict[str, str]:
    return dict(zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True))
