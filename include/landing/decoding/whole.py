"""Data of one schema that become a value of one type, such as a Kafka key that is a number in Avro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import inspect

from include.landing.decoding import avro_schema
from include.landing.decoding.avro import fast_reader
from include.landing.decoding.misfit import Incompatible
from include.landing.decoding.plan import Decoded, converted, one_by_one
from include.schemas.schema import Format, Schema


class WholePlan:
    """Decodes data of one schema to a type that is not a struct.

    Args:
        form: The format of the schema: Avro or JSON Schema.
        schema: The schema.
        declared: The type.

    Raises:
        Incompatible: The format has records only.
    """

    def __init__(self, form: Format, schema: Schema, declared: Any) -> None:
        if form == Format.PROTOBUF:
            raise Incompatible("a message of Protobuf has fields, and the definition wants one value")
        self._read: Callable[[bytes, int], Any]
        if form == Format.AVRO:
            self._read = fast_reader(avro_schema.parse(schema.text, schema.references))
        else:
            self._read = lambda data, start: msgspec.json.decode(data[start:])
        self._declared, self._types = declared, inspect.type_info(declared)

    def events(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        """See ``Plan``."""
        return one_by_one(values, partial(self._value, start=start))

    def _value(self, data: bytes, start: int) -> Any:
        return converted(self._read(data, start), self._declared, self._types)
