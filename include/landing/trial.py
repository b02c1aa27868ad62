"""What would become of some records of a topic, with the present definition of a stream. Nothing is written."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import inspect

from include.kafka.reader import Batch, place
from include.landing.disposition import Disposition
from include.schemas.schema import Format
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import Message


@dataclass
class Reason:
    """Why some records would not land.

    Attributes:
        disposition: Dead letter or quarantined.
        text: The reason of the first of them.
        example: Its partition and offset.
        records: How many records have this reason; its numbers and times may be others.
    """

    disposition: Disposition
    text: str
    example: str
    records: int = 0


@dataclass
class Trial:
    """What would become of some records.

    Attributes:
        records: The number of records.
        landed: How many would land. PostgreSQL could still refuse their rows, for example by a constraint.
        tombstones: How many would be skipped: tombstones, and what is not a change of a row.
        filtered: How many ``where`` would filter.
        reasons: Why others would not land, the most frequent reason first.
        unknown: For each field of the records that the definition does not have, the number of records with it.
        unused: The fields of the definition that no record has.
    """

    records: int
    landed: int
    tombstones: int
    filtered: int
    reasons: Sequence[Reason] = ()
    unknown: Mapping[str, int] = field(default_factory=dict)
    unused: Sequence[str] = ()

    def count(self, disposition: Disposition) -> int:
        """How many records would have this disposition."""
        if disposition is Disposition.LANDED:
            return self.landed
        if disposition is Disposition.FILTERED:
            return self.filtered
        return sum(reason.records for reason in self.reasons if reason.disposition is disposition)


def trial(stream: Stream, messages: Sequence[Message]) -> Trial:
    """Decodes and classifies records as a drain would.

    Args:
        messages: Records of the stream's topic, by partition and offset.
    """
    from include.landing.batch import Preparer

    ends = {partition: offset + 1 for partition, offset in map(place, messages)}
    # A column with the topic does not change what becomes of a record.
    prepared = Preparer(stream, 1, dict.fromkeys(ends, 0)).prepare(Batch(list(messages), ends))
    reasons: dict[tuple[Disposition, str], Reason] = {}
    places = zip(prepared.letter_partitions, prepared.letter_offsets, strict=True)
    for letter, (partition, offset) in zip(prepared.letters, places, strict=True):
        kind = (letter.disposition, _pattern(letter.reason))
        reason = reasons.setdefault(kind, Reason(letter.disposition, letter.reason, f"{partition}:{offset}"))
        reason.records += 1
    skipped = sum(entry.skipped for entry in prepared.entries)
    filtered = sum(entry.filtered for entry in prepared.entries)
    unknown, unused = _compared(stream, _objects(stream, messages))
    return Trial(
        len(messages),
        len(messages) - skipped - filtered - len(prepared.letters),
        skipped,
        filtered,
        sorted(reasons.values(), key=lambda reason: -reason.records),
        unknown,
        unused,
    )


def _pattern(reason: str) -> str:
    """A reason without the durations, times and numbers of a single record."""
    return re.sub(r"[0-9]+([:.,-][0-9]+)*( days?,)?", "#", reason)


def _objects(stream: Stream, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The values that are objects, with all of their fields, also those that the definition does not have."""
    if stream.format != Format.JSON:
        from include.landing.profiling import sampled

        found = sampled.values(messages, stream.registry)
        return found if stream.changes is None else [row for each in found if isinstance(row := _row(each), dict)]
    objects: list[dict[str, Any]] = []
    for value in (value for message in messages if (value := message.value()) is not None):
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            continue
        if stream.changes is not None:
            decoded = _row(decoded)
        if isinstance(decoded, dict):
            objects.append(decoded)
    return objects


def _compared(stream: Stream, objects: Sequence[dict[str, Any]]) -> tuple[dict[str, int], list[str]]:
    """The fields that only the records have, with the number of records, and those that only the definition has."""
    if stream.is_json:
        # The whole value lands.
        return {}, []
    changes = stream.changes
    declared = inspect.type_info(stream.value_event if changes is None else changes.row)
    assert isinstance(declared, inspect.StructType)
    unknown: Counter[str] = Counter()
    seen: set[str] = set()
    for found in objects:
        seen.update(found)
        unknown.update(dict.fromkeys(_unknown(found, declared, ""), 1))
    of_change = () if changes is None else changes.sources
    unused = [each.name for each in declared.fields if each.encode_name not in seen and each.name not in of_change]
    return dict(unknown.most_common()), unused


def _row(change: Any) -> Any:
    """The row in a change event; None if it has none."""
    if isinstance(change, dict) and isinstance(change.get("payload"), dict):
        change = change["payload"]
    return (change.get("after") or change.get("before")) if isinstance(change, dict) else None


def _unknown(found: Any, declared: inspect.Type, path: str) -> Iterator[str]:
    """The paths of the fields of a value that its type does not have."""
    match declared:
        case inspect.Metadata():
            yield from _unknown(found, declared.type, path)
        case inspect.UnionType():
            others = [each for each in declared.types if not isinstance(each, inspect.NoneType)]
            # Of several types, it is not known which one the value has.
            if len(others) == 1:
                yield from _unknown(found, others[0], path)
        case inspect.StructType() if isinstance(found, dict) and not declared.array_like:
            fields = {each.encode_name: each.type for each in declared.fields}
            for name, item in found.items():
                if name in fields:
                    yield from _unknown(item, fields[name], f"{path}{name}.")
                elif name != declared.tag_field:
                    yield f"{path}{name}"
        case inspect.ListType() if isinstance(found, list):
            for item in found:
                yield from _unknown(item, declared.item_type, f"{path.removesuffix('.')}[].")
        case inspect.DictType() if isinstance(found, dict):
            for item in found.values():
                yield from _unknown(item, declared.value_type, f"{path}*.")
