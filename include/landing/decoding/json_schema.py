"""Events from JSON behind a schema id, and whether a JSON Schema fits the struct of a stream.

msgspec validates the events by the struct; the schema is compared with the struct only. The comparison reads ``type``,
``properties``, ``required``, ``additionalProperties``, ``items``, ``enum``, ``anyOf``, ``oneOf`` and references within
the schema; it takes everything else as fitting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from include.landing.decoder import Decoder
from include.landing.decoding.misfit import (
    ANYTHING,
    LISTS,
    OBJECTS,
    TEXT,
    WHOLE,
    Incompatible,
    Misfit,
    alternatives,
    name_of,
    require,
)
from include.landing.decoding.plan import Decoded
from include.schemas.schema import Schema

MAX_DEPTH = 20
"""How many levels of a schema are compared."""

_TEXT = (*TEXT, inspect.BytesType, inspect.ByteArrayType)
_FITS: Mapping[str, tuple[type[inspect.Type], ...]] = {
    "string": _TEXT,
    "integer": WHOLE,
    # A number may be whole.
    "number": WHOLE,
    "boolean": (inspect.BoolType,),
    "null": (inspect.NoneType,),
    "array": LISTS,
    "object": OBJECTS,
}
# A struct may be an array in JSON.
_ARRAY_LIKE = ("array", "object")


class JsonSchemaPlan:
    """Decodes values of one JSON Schema.

    Args:
        schema: The schema.
        event: The struct of the stream.

    Raises:
        Incompatible: No value of the schema can become an event.
    """

    def __init__(self, schema: Schema, event: type[msgspec.Struct]) -> None:
        require(misfits(schema, event))
        self._decoder = Decoder(event)

    def events(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        """See ``Plan``."""
        events, reasons = self._decoder.events([value[start:] for value in values] if start else values)
        if not reasons:
            return events, {}
        remaining = iter(events)
        found = [None if at in reasons else next(remaining) for at in range(len(values))]
        return found, dict(reasons)


def misfits(schema: Schema, event: type[msgspec.Struct]) -> list[Misfit]:
    """Where a JSON Schema does not fit a struct. Raises Incompatible if it is not a JSON Schema."""
    try:
        document = json.loads(schema.text)
    except ValueError as error:
        raise Incompatible(f"it is not JSON: {error}") from error
    if not isinstance(document, dict | bool):
        raise Incompatible("it is not a JSON Schema, which is an object")
    return list(_Comparison(document).misfits(document, inspect.type_info(event), "", True, 0))


class _Comparison:
    def __init__(self, document: Any) -> None:
        self._document = document

    def misfits(self, schema: Any, declared: inspect.Type, path: str, always: bool, depth: int) -> Iterator[Misfit]:
        schema = resolved(schema, self._document)
        options = alternatives(declared)
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return
        if any(isinstance(option.type, ANYTHING) or option.epoch is not None for option in options):
            return
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list) and branches:
            found = [list(self.misfits(branch, declared, path, True, depth + 1)) for branch in branches]
            none_fits = all(any(each.is_fatal for each in wrong) for wrong in found)
            for wrong in found:
                yield from (Misfit(each.path, each.reason, always and none_fits and each.is_fatal) for each in wrong)
            return
        kinds = _kinds(schema)
        unfit = [kind for kind in kinds if not any(_fits(kind, option.type) for option in options)]
        if unfit:
            reason = f"the schema has {' or '.join(unfit)}, the definition {name_of(declared)}"
            yield Misfit(path, reason, always and len(unfit) == len(kinds))
        structs = [option.type for option in options if isinstance(option.type, inspect.StructType)]
        if "object" in kinds and len(structs) == 1 and not structs[0].array_like:
            yield from self._object(schema, structs[0], path, always and len(kinds) == 1, depth)
        if "array" in kinds and isinstance(schema.get("items"), dict):
            for option in options:
                if hasattr(option.type, "item_type"):
                    yield from self.misfits(schema["items"], option.type.item_type, f"{path}[]", False, depth + 1)

    def _object(
        self, schema: Mapping[str, Any], declared: inspect.StructType, path: str, always: bool, depth: int
    ) -> Iterator[Misfit]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        is_closed = schema.get("additionalProperties") is False
        for field in declared.fields:
            name = field.encode_name
            inner = f"{path}.{name}" if path else name
            if name in properties:
                yield from self.misfits(properties[name], field.type, inner, always and name in required, depth + 1)
            elif field.required and is_closed:
                yield Misfit(
                    inner, "the schema does not have this field, and the definition gives it no default", always
                )
            if field.required and name not in required and (name in properties or not is_closed):
                yield Misfit(inner, "the schema does not require this field, and the definition does", False)


def resolved(schema: Any, document: Any) -> Any:
    """The schema that a reference within a document leads to; True, which takes everything, if it is outside."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
            return schema
        if not schema["$ref"].startswith("#"):
            return True
        found: Any = document
        for step in schema["$ref"].lstrip("#").strip("/").split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~"), True) if isinstance(found, dict) else True
        schema = found if schema["$ref"] != "#" else document
    return True


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """The types of JSON that a schema allows; empty if it does not say."""
    named = schema.get("type")
    kinds = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    if not kinds and isinstance(schema.get("properties"), dict):
        kinds = ["object"]
    return [kind for kind in kinds if kind in _FITS]


def _fits(kind: str, declared: inspect.Type) -> bool:
    if isinstance(declared, inspect.StructType) and declared.array_like:
        return kind in _ARRAY_LIKE
    return isinstance(declared, _FITS[kind])
