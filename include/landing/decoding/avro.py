"""Events from Avro: whole batches where the schema allows it, otherwise value by value."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import inspect

from include.landing.decoding import avro_schema
from include.landing.decoding.avro_batch import BatchReader
from include.landing.decoding.avro_reader import AvroReader
from include.landing.decoding.avro_schema import AvroType
from include.landing.decoding.misfit import Misfit, require
from include.landing.decoding.plan import MIN_BATCH, Decoded, Unreadable, completed, converted, one_by_one
from include.schemas.schema import Schema


class AvroPlan:
    """Decodes values of one Avro schema.

    Args:
        schema: The schema.
        event: The struct of the stream.

    Raises:
        Incompatible: No value of the schema can become an event.
    """

    def __init__(self, schema: Schema, event: type[msgspec.Struct]) -> None:
        found, misfits = _fitted(schema, event)
        require(misfits)
        self._event = event
        self._types = inspect.type_info(event)
        self._reader = AvroReader(found)
        self._read = self._reader.read if _needs_limits(found) else fast_reader(found)
        self._batch = BatchReader.of(found, event)

    def events(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        """See ``Plan``."""
        if self._batch is None or len(values) < MIN_BATCH:
            return one_by_one(values, partial(self._event_of, start=start))
        events, unread = self._batch.events(values, start)
        alone = one_by_one([values[at] for at in unread], partial(self._event_of, start=start))
        return completed(events, unread, alone)

    def _event_of(self, value: bytes, start: int) -> Any:
        try:
            record = self._read(value, start)
        except Exception as error:
            # The slow reader names the field.
            self._reader.read(value, start)
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        return converted(record, self._event, self._types)


def misfits(schema: Schema, event: type[msgspec.Struct]) -> list[Misfit]:
    """Where an Avro schema does not fit a struct. Raises Incompatible if it is not a schema of records."""
    return _fitted(schema, event)[1]


def _fitted(schema: Schema, event: type[msgspec.Struct]) -> tuple[AvroType, list[Misfit]]:
    found = avro_schema.parse(schema.text, schema.references)
    return found, avro_schema.misfits(found, inspect.type_info(event))


def _needs_limits(schema: AvroType) -> bool:
    """Whether a few bytes may nest without end, or stand for any number of items."""
    return any(each.is_recursive or (each.kind == "array" and _is_empty(each.items[0])) for each in schema.within())


def _is_empty(schema: AvroType) -> bool:
    """Whether values take no bytes."""
    if schema.kind == "record":
        return not schema.is_recursive and all(_is_empty(each) for _, each in schema.fields)
    return schema.kind == "null" or (schema.kind == "fixed" and schema.size == 0)


def fast_reader(schema: AvroType) -> Callable[[bytes, int], Any]:
    """The function that reads data of a schema, with a compiled library, from where they begin in some bytes."""
    import fastavro

    parsed = fastavro.parse_schema(avro_schema.fastavro_schema(schema))
    read_one = fastavro.schemaless_reader

    def read(value: bytes, start: int) -> Any:
        data = io.BytesIO(value)
        data.seek(start)
        record = read_one(data, parsed, None)
        if data.tell() != len(value):
            raise Unreadable(f"{len(value) - data.tell()} bytes are left after the last field")
        return record

    return read
