"""Structs that decode only some fields of a document, given by their paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import NODEFAULT

from include.definitions import InvalidDefinition
from include.streams.parts import KeyPart, PartField, Path

Steps = tuple[str, ...]
"""The names that lead to a field of a document."""

_Read = Callable[[Any], Any]


class Paths:
    """Reads fields of documents by their paths.

    Args:
        fields: Each field, with its path.

    Attributes:
        struct: The struct that a document is decoded to.

    Raises:
        InvalidDefinition: Two fields have the same path, or one is inside the other.
    """

    def __init__(self, fields: Sequence[tuple[Steps, PartField]]) -> None:
        for path, field in fields:
            for other, rival in fields:
                if field is not rival and path == other[: len(path)]:
                    raise InvalidDefinition(
                        f"event.{rival.name}",
                        f"its path {'.'.join(other)!r} is that of the field {field.name!r}, or inside it.",
                        "Declare one field for it.",
                    )
        reads: dict[int, _Read] = {}
        self.struct = _struct([(path, number, field) for number, (path, field) in enumerate(fields)], reads, _itself)
        self._reads = [reads[number] for number in range(len(fields))]

    def columns(self, documents: Sequence[Any]) -> list[list[Any]]:
        """The values of each field in documents."""
        return [list(map(read, documents)) for read in self._reads]


def paths_of_key(fields: Sequence[PartField]) -> Paths | None:
    """The fields that are fields of a Kafka key; None if there are none."""
    found = [(field.part.path, field) for field in fields if isinstance(field.part, KeyPart) and field.part.path]
    return Paths(found) if found else None


def paths_of_value(fields: Sequence[PartField]) -> Paths | None:
    """The fields that are at paths of a value; None if there are none."""
    found = [(field.part.steps, field) for field in fields if isinstance(field.part, Path)]
    return Paths(found) if found else None


def key_struct(fields: Sequence[PartField]) -> type[msgspec.Struct] | None:
    """The struct that a Kafka key is decoded to; None if the key is one value."""
    if (paths := paths_of_key(fields)) is not None:
        return paths.struct
    kinds = [field.kind for field in fields if isinstance(field.part, KeyPart)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None)


def _struct(
    entries: Sequence[tuple[Steps, int, PartField]], reads: dict[int, _Read], outer: _Read
) -> type[msgspec.Struct]:
    """The struct of a document, or of an object inside it; adds the functions that read its fields."""
    declared: list[tuple[str, Any, Any]] = []
    groups: dict[str, list[tuple[Steps, int, PartField]]] = {}
    for (name, *rest), number, field in entries:
        if rest:
            groups.setdefault(name, []).append((tuple(rest), number, field))
            continue
        attribute = f"field{number}"
        declared.append((attribute, field.type, _field(field, name)))
        reads[number] = _within(outer, attrgetter(attribute), field)
    for position, (name, some) in enumerate(groups.items()):
        attribute = f"group{position}"
        inner = _struct(some, reads, _chained(outer, attrgetter(attribute)))
        if all(field.is_optional for _, _, field in some):
            declared.append((attribute, inner | None, msgspec.field(default=None, name=name)))
        else:
            declared.append((attribute, inner, msgspec.field(name=name)))
    return msgspec.defstruct("Fields", declared, kw_only=True)


def _field(field: PartField, name: str) -> Any:
    if field.default is not NODEFAULT:
        return msgspec.field(default=field.default, name=name)
    if field.default_factory is not NODEFAULT:
        return msgspec.field(default_factory=field.default_factory, name=name)
    return msgspec.field(default=None, name=name) if field.is_optional else msgspec.field(name=name)


def _itself(document: Any) -> Any:
    return document


def _chained(outer: _Read, read: _Read) -> _Read:
    def chained(document: Any) -> Any:
        found = outer(document)
        return None if found is None else read(found)

    return read if outer is _itself else chained


def _within(outer: _Read, read: _Read, field: PartField) -> _Read:
    """Reads a field; an object around it that is missing means that the field is missing."""

    def within(document: Any) -> Any:
        found = outer(document)
        return field.missing() if found is None else read(found)

    return read if outer is _itself else within
