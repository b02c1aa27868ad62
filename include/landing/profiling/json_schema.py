"""The fields of a JSON Schema, as the struct of a stream declares them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from include.landing.decoding.json_schema import resolved
from include.landing.decoding.misfit import Incompatible
from include.landing.profiling.avro import MAX_SYMBOLS
from include.schemas.schema import Schema
from include.streams.profiling.schema import stated
from include.streams.profiling.types import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    MAX_LEVELS,
    STR,
    Choice,
    DictOf,
    Field,
    ListOf,
    Struct,
    Type,
)

_PLAIN: dict[str, Type] = {"string": STR, "integer": INT, "number": FLOAT, "boolean": BOOL}


def fields_of(schema: Schema) -> tuple[Field, ...]:
    """The fields of the objects of a JSON Schema. A type that it does not state is ``Any``.

    Raises:
        Incompatible: It is not a JSON Schema.
    """
    try:
        document = json.loads(schema.text)
    except ValueError as error:
        raise Incompatible(f"it is not JSON: {error}") from error
    return _Document(document).fields(document, 0)


class _Document:
    def __init__(self, document: Any) -> None:
        self._document = document
        self._open: list[int] = []

    def fields(self, schema: Any, level: int) -> tuple[Field, ...]:
        """The fields of an object."""
        schema = self._resolved(schema)
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        found = {}
        for part in self._parts(schema):
            for name, each in self._properties(part).items():
                declared, is_nullable = self._type(each, level + 1)
                found[name] = stated(name, declared, optional=is_nullable or name not in required)
        return tuple(found.values())

    def _type(self, schema: Any, level: int) -> tuple[Type, bool]:
        """A type, and whether it allows null."""
        schema = self._resolved(schema)
        if id(schema) in self._open:
            return ANY, False
        self._open.append(id(schema))
        try:
            return self._type_of(schema, level)
        finally:
            self._open.pop()

    def _type_of(self, schema: Mapping[str, Any], level: int) -> tuple[Type, bool]:
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list):
            others = [each for each in branches if self._resolved(each).get("type") != "null"]
            declared = self._type(others[0], level)[0] if len(others) == 1 else ANY
            return declared, len(others) < len(branches)
        named = schema.get("type")
        kinds = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else []
        others = [kind for kind in kinds if kind != "null"]
        is_nullable = len(others) < len(kinds) or None in _values(schema)
        if set(others) == {"integer", "number"}:
            others = ["number"]
        return (self._one(others[0], schema, level) if len(others) == 1 else _choice(schema, ANY)), is_nullable

    def _one(self, kind: str, schema: Mapping[str, Any], level: int) -> Type:
        if kind == "string":
            return _choice(schema, STR)
        if kind == "array":
            item, has_nulls = self._type(schema.get("items", True), level + 1) if level < MAX_LEVELS else (ANY, False)
            return ListOf(item, has_nulls)
        if kind == "object" and level < MAX_LEVELS:
            if fields := self.fields(schema, level):
                return Struct(fields)
            if isinstance(schema.get("additionalProperties"), dict):
                value, has_nulls = self._type(schema["additionalProperties"], level + 1)
                return DictOf(value, has_nulls)
        return _PLAIN.get(kind, ANY)

    def _parts(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The schemas that an object must have together."""
        several = schema.get("allOf")
        return [schema, *map(self._resolved, several if isinstance(several, list) else ())]

    @staticmethod
    def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found = schema.get("properties")
        return found if isinstance(found, dict) else {}

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """A schema, or the one that it refers to; an empty one, which takes everything, for a reference elsewhere."""
        found = resolved(schema, self._document)
        return found if isinstance(found, dict) else {}


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema lists."""
    found = schema.get("enum")
    return found if isinstance(found, list) else []


def _choice(schema: Mapping[str, Any], otherwise: Type) -> Type:
    """The type of the texts that a schema lists; ``otherwise`` if it lists none, many, or something else."""
    values = [value for value in _values(schema) if value is not None]
    if values and len(values) <= MAX_SYMBOLS and all(isinstance(value, str) for value in values):
        return Choice(tuple(values))
    return otherwise
