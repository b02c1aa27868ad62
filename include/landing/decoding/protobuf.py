"""Events from Protobuf, decoded by the package protobuf and converted by msgspec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from msgspec import inspect

from include.landing.decoding import protobuf_schema, protobuf_wire
from include.landing.decoding.misfit import Misfit, alternatives, require
from include.landing.decoding.plan import MIN_BATCH, Decoded, Unreadable, completed, converted, one_by_one
from include.landing.decoding.protobuf_batch import ProtobufBatch
from include.landing.decoding.protobuf_schema import DURATION, JSON_TYPES, TIMESTAMP, WRAPPERS, by_encoded_name
from include.schemas import framing
from include.schemas.framing import NotFramed
from include.schemas.protobuf import ProtobufFile
from include.schemas.schema import InvalidSchema, Schema

MAX_MESSAGES = 100
"""How many message types of one schema a plan remembers."""

_FIRST = b"\0"
"""The message indexes of the first message."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Read = Callable[[Any], Any]


class ProtobufPlan:
    """Decodes values of one Protobuf schema. Message indexes name the message type.

    Args:
        schema: The schema.
        event: The struct of the stream.

    Raises:
        InvalidSchema: No message of the schema can become an event.
    """

    def __init__(self, schema: Schema, event: type[msgspec.Struct]) -> None:
        self._event = event
        self._messages: dict[tuple[int, ...], _MessagePlan | InvalidSchema] = {}
        self._file = ProtobufFile(schema)
        require(_fewest(self._file, inspect.type_info(event)))

    def events(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        """See ``Plan``."""
        first = self._message((0,)) if start else None
        if not isinstance(first, _MessagePlan) or first.batch is None or len(values) < MIN_BATCH:
            return self._by_message(values, start, after_key)
        # Nearly all values have the first message.
        events, unread = first.batch.events(values, start, after=_FIRST)
        return completed(events, unread, self._by_message([values[at] for at in unread], start, after_key))

    def _by_message(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        events: list[Any] = [None] * len(values)
        errors: dict[int, BaseException | str] = {}
        for (indexes, begin), where in self._groups(values, start, after_key, errors).items():
            found = self._message(indexes)
            if isinstance(found, InvalidSchema):
                errors |= dict.fromkeys(where, found)
                continue
            decoded, wrong = found.events([values[at] for at in where], begin)
            errors |= {where[at]: error for at, error in wrong.items()}
            for at, event in zip(where, decoded, strict=True):
                events[at] = event
        return events, errors

    def _groups(
        self, values: Sequence[bytes], start: int, after_key: Sequence[bytes], errors: dict[int, BaseException | str]
    ) -> dict[tuple[tuple[int, ...], int], list[int]]:
        """The values by their message and the beginning of their data."""
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for at, value in enumerate(values):
            try:
                if start:
                    indexes, begin = framing.message_indexes(value, start)
                else:
                    indexes, begin = framing.message_indexes(after_key[at] or _FIRST, 0)[0], 0
            except NotFramed as error:
                errors[at] = error
                continue
            groups.setdefault((indexes, begin), []).append(at)
        return groups

    def _message(self, indexes: tuple[int, ...]) -> _MessagePlan | InvalidSchema:
        found = self._messages.get(indexes)
        if found is None:
            if len(self._messages) >= MAX_MESSAGES:
                self._messages.clear()
            try:
                found = _MessagePlan(self._file.message(indexes), self._event)
            except InvalidSchema as error:
                found = error
            self._messages[indexes] = found
        return found


def misfits(schema: Schema, event: type[msgspec.Struct]) -> list[Misfit]:
    """Where the message of a Protobuf schema that fits best does not fit a struct.

    Raises:
        InvalidSchema: It is not a Protobuf schema, or has no message.
    """
    return _fewest(ProtobufFile(schema), inspect.type_info(event))


def _fewest(file: ProtobufFile, declared: inspect.Type) -> list[Misfit]:
    if not file.messages:
        raise InvalidSchema("it has no message")
    compared = [list(protobuf_schema.misfits(message, declared)) for message in file.messages]
    return min(compared, key=lambda found: (sum(each.is_fatal for each in found), len(found)))


class _MessagePlan:
    """Decodes messages of one type."""

    def __init__(self, message: Any, event: type[msgspec.Struct]) -> None:
        from google.protobuf import message_factory

        declared = inspect.type_info(event)
        require(list(protobuf_schema.misfits(message, declared)))
        self._parse = message_factory.GetMessageClass(message).FromString
        self._read = _record(message, declared)
        self.batch = ProtobufBatch.of(message, event)
        self._message, self._event, self._types = message, event, declared

    def events(self, values: Sequence[bytes], start: int) -> Decoded:
        """Decodes values; see ``Plan``."""
        if self.batch is None or len(values) < MIN_BATCH:
            return one_by_one(values, partial(self._event_of, start=start))
        events, unread = self.batch.events(values, start)
        alone = one_by_one([values[at] for at in unread], partial(self._event_of, start=start))
        return completed(events, unread, alone)

    def _event_of(self, value: bytes, start: int) -> Any:
        from google.protobuf.message import DecodeError

        data = value[start:]
        try:
            message = self._parse(data)
        except DecodeError as error:
            where = protobuf_wire.broken_field(self._message, data)
            raise Unreadable(f"{where}the bytes are not a {self._message.full_name}: {error}") from error
        record = self._read(message)
        return converted(record, self._event, self._types)


def _record(message: Any, declared: inspect.Type | None) -> _Read:
    """The function that reads the fields of a message that a struct has, or all of them."""
    if isinstance(declared, inspect.StructType):
        known = by_encoded_name(message)
        wanted: list[tuple[str, Any, inspect.Field | None]] = [
            (each.encode_name, known[each.encode_name], each) for each in declared.fields if each.encode_name in known
        ]
    else:
        wanted = [(field.name, field, None) for field in message.fields]
    readers = [
        (
            name,
            field.name,
            field.has_presence,
            _is_null_if_absent(each),
            _value(field, each.type if each is not None else None),
        )
        for name, field, each in wanted
    ]

    def read(found: Any) -> dict[str, Any]:
        record = {}
        for name, attribute, has_presence, is_null, value in readers:
            if not has_presence or found.HasField(attribute):
                record[name] = value(getattr(found, attribute))
            elif is_null:
                record[name] = None
        return record

    return read


def _is_null_if_absent(declared: inspect.Field | None) -> bool:
    """Whether a field that a record does not have is None; otherwise the struct's default applies."""
    return declared is None or declared.required


def _value(field: Any, declared: inspect.Type | None) -> _Read:
    if protobuf_schema.is_map(field):
        inner = _one(field.message_type.fields_by_name["value"], _inner(declared, "value_type"))
        return lambda found: {key: inner(found[key]) for key in found}
    one = _one(field, _inner(declared, "item_type") if field.is_repeated else declared)
    return (lambda found: [one(each) for each in found]) if field.is_repeated else one


def _one(field: Any, declared: inspect.Type | None) -> _Read:
    """The function that converts one value of a field."""
    if field.enum_type is not None:
        options = alternatives(declared) if declared is not None else ()
        if options and not any(protobuf_schema.is_text(option) for option in options):
            return int
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    if field.message_type is None:
        return lambda found: found
    name = field.message_type.full_name
    if name == TIMESTAMP:
        return lambda found: _EPOCH + timedelta(seconds=found.seconds, microseconds=found.nanos // 1000)
    if name == DURATION:
        return lambda found: timedelta(seconds=found.seconds, microseconds=found.nanos // 1000)
    if name in WRAPPERS:
        return lambda found: found.value
    if name in JSON_TYPES:
        from google.protobuf import json_format

        to_dict: _Read = json_format.MessageToDict
        return to_dict
    return _nested(field.message_type, declared)


def _nested(message: Any, declared: inspect.Type | None) -> _Read:
    """Reads a message inside another one; a message may contain itself."""
    structs = (
        [each.type for each in alternatives(declared) if isinstance(each.type, inspect.StructType)]
        if (declared is not None)
        else []
    )
    inner = structs[0] if len(structs) == 1 else None
    made: list[_Read] = []

    def read(found: Any) -> Any:
        if not made:
            made.append(_record(message, inner))
        return made[0](found)

    return read


def _inner(declared: inspect.Type | None, name: str) -> inspect.Type | None:
    """The type inside a list or a map."""
    for option in alternatives(declared) if declared is not None else ():
        if (found := getattr(option.type, name, None)) is not None:
            assert isinstance(found, inspect.Type)
            return found
    return None
