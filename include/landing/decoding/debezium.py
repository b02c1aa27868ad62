"""The decoder of Debezium's change events: each becomes a row of its table, with what is known of the change."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from include.error_codes import Code
from include.landing.decoder import EventDecoder, Others, Reason, SkipReason, StopReason
from include.landing.decoding.change_metadata import ChangeMetadata
from include.schemas.framing import Headers
from include.streams.change_events import DELETE, MESSAGE, OPERATION, PLACEHOLDER, TIME, TRUNCATE, UNCHANGED
from include.streams.connect_types import Encoding, Unscaled
from include.streams.definition import Stream
from include.streams.times import Epoch

_PLACEHOLDER = PLACEHOLDER.encode()
_AS_BASE64 = base64.b64encode(_PLACEHOLDER)
# What Debezium writes for a list, a map, and bytes.
_PLACEHOLDERS = (PLACEHOLDER, _PLACEHOLDER, [PLACEHOLDER], {PLACEHOLDER: PLACEHOLDER}, [*_PLACEHOLDER])
_ROWS = frozenset("cru")
_UNITS = {
    "io.debezium.time.Timestamp": 1_000,
    "org.apache.kafka.connect.data.Timestamp": 1_000,
    "io.debezium.time.MicroTimestamp": 1_000_000,
    "io.debezium.time.NanoTimestamp": 1_000_000_000,
}
_MAX_SCHEMAS = 1_000
_METADATA = SkipReason("metadata of a transaction or a heartbeat, not a change of a row")
_FOREIGN = (
    "the value is not a change event of Debezium: it has no op, source, before and after; if the topic has rows, such "
    "as those that ExtractNewRecordState makes, omit 'envelope' in the definition"
)


class ChangeDecoder:
    """Decodes the change events of one stream.

    Args:
        values: Decodes values to ``Changes.value`` or ``Changes.event``.
    """

    def __init__(self, stream: Stream, values: EventDecoder) -> None:
        assert stream.changes is not None
        self.reads_headers, self.reads_others = values.reads_headers, values.reads_others
        self._stream, self._changes, self._values = stream, stream.changes, values
        self._sources = tuple(self._changes.sources.items())
        required = {field.name for field in self._changes.fields if not field.nullable}
        self._required = tuple(name for name in self._changes.sources if name in required)
        self._declared = {
            encoded: field
            for field, encoded in zip(
                self._changes.fields[-len(stream.event.__struct_fields__) :],
                stream.event.__struct_encode_fields__,
                strict=True,
            )
            if field.encoding is not None or isinstance(field.notation, Epoch)
        }
        self._schemas: dict[bytes, str] = {}
        self._metadata = ChangeMetadata(stream)

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``."""
        found, bad = self._values.events(values, headers, others)
        indices = range(len(values)) if not bad else [index for index in range(len(values)) if index not in bad]
        rows: list[Any] = []
        for index, change in zip(indices, found, strict=True):
            value = values[index]
            try:
                row = self._row(change)
            except _Refused as refused:
                bad[index] = refused.reason
                continue
            except _NoChange:
                is_metadata = self._metadata.has(value, None if headers is None else headers[index])
                bad[index] = _METADATA if is_metadata else _FOREIGN
                continue
            if _PLACEHOLDER in value or _AS_BASE64 in value:
                self._mark_unchanged(row)
            rows.append(row)
        return rows, bad

    def _row(self, value: Any) -> Any:
        """The row of a change event. Raises _Refused if it has none, and _NoChange if the value is not one."""
        change = getattr(value, "payload", UNSET)
        if change is UNSET or change is None:
            change = value
        elif self._declared:
            self._require_schema(value.schema)
        operation = change.op
        row = self._of(operation, change)
        source = change.source
        setattr(row, OPERATION, operation)
        setattr(row, TIME, _time(change))
        for name, there in self._sources:
            setattr(row, name, getattr(source, there, None))
        for name in self._required:
            if getattr(row, name) is None:
                raise _Refused(f"the change has no source.{self._changes.sources[name]}, and {name!r} is never null")
        return row

    def _of(self, operation: str | None, change: Any) -> Any:
        if operation in _ROWS:
            if change.after is None:
                raise _Refused(f"the change with op {operation!r} has no 'after'")
            return change.after
        if operation == DELETE:
            if change.before is None:
                raise _Refused(
                    "the delete has no 'before', so it does not say which row; give the source table a primary key, or "
                    "REPLICA IDENTITY FULL"
                )
            return change.before
        if operation == TRUNCATE:
            if not self._stream.current:
                return self._changes.before()
            raise _Refused(
                StopReason(
                    "the source table was truncated, and no order is known between the truncation and the changes in "
                    "other partitions of the topic",
                    Code.SOURCE_TRUNCATED,
                )
            )
        if operation == MESSAGE:
            raise _Refused(SkipReason("a message of the database's log, not a change of a row"))
        if operation is None and change.source is None and change.before is None and change.after is None:
            raise _NoChange
        raise _Refused(f"the value is not a change event of Debezium: op is {operation!r}")

    def _mark_unchanged(self, row: Any) -> None:
        """Replaces the values that Debezium does not know by None, and notes their columns."""
        unchanged = [name for name in self._changes.replaceable if getattr(row, name) in _PLACEHOLDERS]
        if unchanged:
            setattr(row, UNCHANGED, unchanged)
            for name in unchanged:
                setattr(row, name, None)

    def _require_schema(self, schema: msgspec.Raw) -> None:
        """Raises _Refused if the schema of a value has other encodings than the definition declares."""
        text = bytes(schema)
        if text not in self._schemas:
            if len(self._schemas) >= _MAX_SCHEMAS:
                self._schemas.clear()
            self._schemas[text] = "; ".join(self._misfits(text))
        if reason := self._schemas[text]:
            raise _Refused(reason)

    def _misfits(self, schema: bytes) -> Iterator[str]:
        for part in columns_of(schema):
            field = self._declared.get(part.get("field", ""))
            name = part.get("name")
            if field is None or not isinstance(name, str):
                continue
            where = f"the schema of the record says that {part['field']!r} is {name}"
            if (
                isinstance(field.notation, Epoch)
                and _UNITS.get(name, field.notation.per_second) != field.notation.per_second
            ):
                yield f"{where}, and the definition that it has {field.notation.unit}"
            elif field.encoding is not None and name not in field.encoding.names:
                yield f"{where}, and the definition that it is {_shown(field.encoding)}"
            elif isinstance(field.encoding, Unscaled) and str(field.encoding.scale) != _scale(part):
                yield f"{where} with scale {_scale(part)}, and the definition that its scale is {field.encoding.scale}"


def columns_of(schema: bytes) -> list[dict[str, Any]]:
    """The columns of the row in Kafka Connect's schema of a change event; none if it is not one."""
    try:
        found = msgspec.json.decode(schema)
    except msgspec.DecodeError:
        return []
    parts = found.get("fields") if isinstance(found, dict) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("field") == "after" and isinstance(part.get("fields"), list):
            return [each for each in part["fields"] if isinstance(each, dict)]
    return []


class _NoChange(Exception):
    """The value has no field of a change event."""


class _Refused(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _time(change: Any) -> int:
    """When the source made the change, in microseconds since 1970; otherwise when Debezium read it."""
    for block in (change.source, change):
        if block is None:
            continue
        # Connectors write 0 for the rows of some snapshots.
        if exact := getattr(block, "ts_us", None):
            return int(exact)
        if milliseconds := getattr(block, "ts_ms", None):
            return int(milliseconds) * 1_000
    raise _Refused("the change has no time: neither source.ts_ms nor ts_ms")


def _scale(part: Mapping[str, Any]) -> str:
    parameters = part.get("parameters")
    return str(parameters.get("scale")) if isinstance(parameters, dict) else "None"


def _shown(encoding: Encoding) -> str:
    return " or ".join(encoding.names)
