"""The decoder of streams whose records name their schema. It decodes the records of a batch schema by schema."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from include.error_codes import Code
from include.landing.decoder import Others, Reason, StopReason, reason_of
from include.landing.decoding.avro import AvroPlan
from include.landing.decoding.json_schema import JsonSchemaPlan
from include.landing.decoding.misfit import Incompatible
from include.landing.decoding.plan import Plan
from include.landing.decoding.protobuf import ProtobufPlan
from include.landing.decoding.whole import WholePlan
from include.schemas import framing, registry
from include.schemas.framing import Headers, NotFramed, SchemaKey
from include.schemas.registry import SchemaMissing, SchemaRegistry
from include.schemas.schema import Format, InvalidSchema, Schema, shown
from include.streams.definition import Stream

MAX_SCHEMAS = 2_000
"""How many schemas a decoder remembers. It asks the registry again for one that it has forgotten."""

_PREFIX: Callable[[bytes], bytes] = itemgetter(slice(framing.PREFIX_BYTES))

PLANS: dict[Format, Callable[[Schema, type[msgspec.Struct]], Plan]] = {
    Format.AVRO: AvroPlan,
    Format.JSON_SCHEMA: JsonSchemaPlan,
    Format.PROTOBUF: ProtobufPlan,
}


class FramedDecoder:
    """Decodes the records of one stream; each names the schema of its value.

    Args:
        stream: The stream.
        of_key: The type to decode Kafka keys to, instead of values.
    """

    reads_headers = True
    reads_others = False

    def __init__(self, stream: Stream, of_key: Any = None) -> None:
        self._stream = stream
        self._registry = SchemaRegistry(stream.registry)
        self._format = Format(stream.format if of_key is None else stream.key_format)
        self._option = "format" if of_key is None else "key_format"
        self._part = framing.VALUE if of_key is None else framing.KEY
        self._event = stream.value_event if of_key is None else of_key
        self._known: OrderedDict[SchemaKey, _Known] = OrderedDict()
        self._names: dict[SchemaKey, str] = {}

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``.

        Raises:
            RegistryUnavailable: A schema that is not known yet cannot be read now.
            UserError: The registry refuses the request.
        """
        bad: dict[int, Reason] = {}
        found: list[Any] = [None] * len(values)
        for (key, start), (indices, rest) in self._groups(values, headers, bad).items():
            known = self._schema(key)
            if known.plan is None:
                bad |= dict.fromkeys(indices, known.reason)
                continue
            is_whole = len(indices) == len(values)
            decoded, errors = known.plan.events(values if is_whole else [values[at] for at in indices], start, rest)
            if is_whole:
                found = decoded
            else:
                for at, event in zip(indices, decoded, strict=True):
                    found[at] = event
            if errors:
                name = self._name(key)
                bad |= {indices[at]: _reason(error, f"{name}: ") for at, error in errors.items()}
        return ([event for at, event in enumerate(found) if at not in bad] if bad else found), bad

    def _groups(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None, bad: dict[int, Reason]
    ) -> dict[tuple[SchemaKey, int], tuple[Sequence[int], Sequence[bytes]]]:
        """The records by their schema and the beginning of their data: their indices, and the rest of their headers."""
        if headers is None or not any(headers):
            prefixes = set(map(_PREFIX, values))
            if len(prefixes) == 1 and len(prefix := next(iter(prefixes))) == framing.PREFIX_BYTES and prefix[0] == 0:
                key, start, _ = framing.schema_of(prefix, None)
                return {(key, start): (range(len(values)), [b""] * len(values))}
        groups: dict[tuple[SchemaKey, int], tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
        for at, value in enumerate(values):
            try:
                key, start, rest = framing.schema_of(value, headers[at] if headers is not None else None, self._part)
            except NotFramed as error:
                bad[at] = str(error)
                continue
            indices, rests = groups[key, start]
            indices.append(at)
            rests.append(rest)
        return dict(groups)

    def _schema(self, key: SchemaKey) -> _Known:
        """What is known of a schema; asks the registry the first time, and again if it did not have it."""
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        try:
            schema = self._registry.schema(key)
        except SchemaMissing:
            return _Known(None, StopReason(registry.missing(key, self._stream.registry), Code.SCHEMA_UNKNOWN))
        known = self._known[key] = self._planned(key, schema)
        if len(self._known) > MAX_SCHEMAS:
            self._known.popitem(last=False)
        return known

    def _planned(self, key: SchemaKey, schema: Schema) -> _Known:
        try:
            if schema.kind != self._format.kind:
                raise Incompatible(
                    f"it is a schema of {schema.kind}, and the stream has {self._option}={str(self._format)!r}"
                )
            return _Known(self._plan(schema), "")
        except InvalidSchema as error:
            reason = f"no record of {self._name(key)} can become a {self._stream.value_event.__name__}: {error}"
            return _Known(None, StopReason(reason, Code.SCHEMA_INCOMPATIBLE))

    def _plan(self, schema: Schema) -> Plan:
        if isinstance(self._event, type) and issubclass(self._event, msgspec.Struct):
            return PLANS[self._format](schema, self._event)
        return WholePlan(self._format, schema, self._event)

    def _name(self, key: SchemaKey) -> str:
        """A schema's name for messages. Asks the registry for its subjects, once."""
        if key not in self._names:
            self._names[key] = shown(key, self._registry.subjects(key))
            if len(self._names) > MAX_SCHEMAS:
                del self._names[next(iter(self._names))]
        return self._names[key]


class _Known(NamedTuple):
    """A schema that was asked for: its plan, or the reason why it has none."""

    plan: Plan | None
    reason: Reason


def _reason(error: BaseException | str, prefix: str) -> str:
    return prefix + error if isinstance(error, str) else reason_of(error, prefix)
