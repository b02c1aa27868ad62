"""Events with masked fields: what must not be stored is replaced as soon as a record is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from include import connections
from include.landing.decoder import EventDecoder, Others, Reason, SkipReason, StopReason
from include.schemas.framing import Headers
from include.streams.definition import Stream
from include.streams.masks import EVERY, Masking, masking, nothing, steps_of

_Change = Callable[[Any], None]

# Reasons that quote no value: those of msgspec name types, fields of the definition and positions.
_AT = r"( - at `[^`]*`)?"
_NAMES = r"`[\w |.]+`"
_SAFE = re.compile(
    r"(ValidationError|DecodeError): ("
    rf"Expected {_NAMES}(, got {_NAMES})?|Object missing required field `[^`]*`"
    r"|Expected `datetime` with a timezone component"
    r"|Invalid (RFC3339 encoded (datetime|date|time)|UUID|decimal string|base64 encoded string)"
    r"|Number out of range|Input data was truncated|JSON is malformed: [a-z ]+ \(byte [0-9]+\)"
    rf"|nested deeper than [0-9]+ levels){_AT}"
    r"(; (declare a time in numbers as|if these times have no zone)[ \w,=;|\[\]\"()/.]*)?"
    r"|the record has no [\w '.-]+|the tombstone has no Kafka key, so it deletes nothing"
)
_PREFIX = re.compile(r"Kafka key: |schema (id [0-9]+|GUID [0-9a-f-]+)( \([\w ,.-]*\))?: ")
_TYPE = re.compile(r"[A-Za-z_]\w*(?=: )")
_HIDDEN = "the text is not stored, because the stream has masked fields"


class MaskedDecoder:
    """Decodes the records of one stream, and masks fields of the events.

    The reasons of records that are not events quote no values.

    Args:
        stream: The stream.
        decoder: The decoder of its events.
    """

    def __init__(self, stream: Stream, decoder: EventDecoder) -> None:
        self.reads_headers, self.reads_others = decoder.reads_headers, decoder.reads_others
        self._decoder = decoder
        self._masks = Masks(stream)

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``."""
        events, bad = self._decoder.events(values, headers, others)
        self._masks.apply(events)
        return events, {index: self._masks.safe(reason) for index, reason in bad.items()}


class Masks:
    """The masks of a stream.

    Args:
        stream: The stream.
        names: The fields to mask; all by default.

    Raises:
        UserError: The secret of a hash is not defined.
    """

    def __init__(self, stream: Stream, names: Iterable[str] | None = None) -> None:
        wanted = None if names is None else set(names)
        self._whole: list[tuple[str, Masking]] = []
        self._inner: list[tuple[str, list[str], Masking]] = []
        for path, mask in stream.mask.items():
            first, *rest = steps_of(path)
            if wanted is not None and first not in wanted:
                continue
            applied = masking(mask, connections.secret)
            if rest:
                self._inner.append((first, rest, applied))
            else:
                self._whole.append((first, applied))
        fields = [field.name for field in stream.fields]
        self._defaults = {field.name: field.default for field in msgspec.structs.fields(stream.event)}
        self._prefixes = tuple(f"{name}: " for name in fields) + tuple(
            f"{part.name}, from {part.part}: " for part in stream.parts
        )

    def apply(self, events: Sequence[Any]) -> None:
        """Masks fields of events, in place."""
        set_field = msgspec.structs.force_setattr
        for name, rest, applied in self._inner:
            default = self._defaults.get(name)
            for value in map(attrgetter(name), events):
                # A default is shared by events, and is not from a record.
                if value is not default:
                    _mask_inside(value, rest, applied)
        for name, applied in self._whole:
            for event, value in zip(events, list(map(attrgetter(name), events)), strict=True):
                if value is not None and value is not UNSET:
                    set_field(event, name, _masked(value, applied))

    def safe(self, reason: Reason) -> Reason:
        """A reason that quotes no value of a record."""
        if isinstance(reason, StopReason | SkipReason):
            return reason
        rest = reason
        while True:
            prefix = next((each for each in self._prefixes if rest.startswith(each)), "")
            if not prefix and (found := _PREFIX.match(rest)):
                prefix = found[0]
            if not prefix:
                break
            rest = rest[len(prefix) :]
        known = reason[: len(reason) - len(rest)]
        if _SAFE.fullmatch(rest):
            return reason
        kind = _TYPE.match(rest)
        return f"{known}{kind[0] if kind else 'not an event'}: {_HIDDEN}"


def _mask_inside(value: Any, steps: Sequence[str], applied: Masking) -> None:
    """Masks what a path leads to inside a value, in place; a list stands for its items."""
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _mask_inside(item, steps, applied)
        return
    step, *rest = steps
    if isinstance(value, dict):
        for name in list(value) if step == EVERY else [step]:
            if name in value:
                if rest:
                    _mask_inside(value[name], rest, applied)
                else:
                    value[name] = _masked(value[name], applied)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__ if step == EVERY else [step]:
            # Of the types of a union, only some may have the field.
            if not hasattr(value, name):
                continue
            if rest:
                _mask_inside(getattr(value, name), rest, applied)
            else:
                msgspec.structs.force_setattr(value, name, _masked(getattr(value, name), applied))


def _masked(value: Any, applied: Masking) -> Any:
    """A value masked; of a list, each item."""
    if value is None or value is UNSET:
        return value
    if isinstance(value, list | tuple | set | frozenset) and applied is not nothing:
        return [_masked(item, applied) for item in value]
    return applied(value)
