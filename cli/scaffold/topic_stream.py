"""Writes the definition of a new stream for a topic that has records. It works, and is meant to be edited."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.scaffold.event_source import IMPORTED, WIDTH, EventSource, comment_lines, event_source, literal
from cli.scaffold.stream import FOLDER, class_name, free
from include.landing.profiling import sampled
from include.project import ROOT
from include.schemas.schema import Format
from include.streams import definitions
from include.streams.change_events import DEBEZIUM
from include.streams.definition import REGISTRY
from include.streams.profiling import Profile, profile, record
from include.streams.profiling.envelope import Envelope
from include.streams.profiling.types import ANY, Field, ListOf, Struct

if TYPE_CHECKING:
    from include.kafka.sample import Sample
    from include.streams.definition import Stream

_LISTED = 5
_KINDS = {
    Format.AVRO: "Avro",
    Format.PROTOBUF: "Protobuf messages",
    Format.JSON_SCHEMA: "JSON objects with a JSON Schema",
}


@dataclass(frozen=True)
class Written:
    """A definition that was written.

    Attributes:
        file: Its path.
        profile: What it was written from.
        stream: The stream that it defines.
    """

    file: Path
    profile: Profile
    stream: Stream


def write(name: str, sample: Sample, folder: Path = FOLDER, *, registry: str = REGISTRY) -> Written:
    """Writes the definition of a stream of the sample's topic.

    Args:
        registry: The connection to the schema registry, if the records name schemas.

    Raises:
        UserError: The name is invalid or taken, or no definition can be written for the topic.
    """
    file = free(name, folder)
    decoded = sampled.decoded(sample.topic, sample.messages, registry)
    key_format = sampled.key_format(sample.messages, registry)
    found = profile(sample.topic, list(map(record.of, sample.messages)), decoded, key_format)
    text = source(name, sample, found, registry)
    ast.parse(text)
    file.write_text(text, encoding="utf-8")
    loaded = definitions.find(folder)
    shown = str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)
    if shown in loaded.broken:
        # For example, fields that are never null and together do not fit into a row.
        file.unlink()
        raise loaded.broken[shown]
    return Written(Path(shown), found, loaded.valid[name])


def source(name: str, sample: Sample, found: Profile, registry: str = REGISTRY) -> str:
    """The Python source of the definition."""
    event = class_name(name, IMPORTED)
    written = event_source(event, found.fields, _about_event(found))
    written.imports.setdefault("include.streams.definition", set()).add("Stream")
    if found.time.field is None:
        written.imports["include.streams.definition"].add("RECORD_TIMESTAMP")
    parts = [
        "\n".join(_docstring(name, sample, found)),
        "\n".join(_imports(written)),
        *(f"\n{each}" for each in written.classes),
        "\n" + "\n".join(_stream(name, event, found, written, registry)),
    ]
    return "\n\n".join(parts) + "\n"


def summary(found: Profile) -> Iterator[str]:
    """Lines about the topic as a whole: its envelope, its types of events, its keys, and records that do not fit."""
    values = found.records - found.tombstones
    kind = "JSON objects"
    if found.decoded is not None:
        kind = _KINDS[found.decoded.format]
    yield f"The values are {kind} in {found.events:,} of {values:,} records with a value."
    if found.decoded is not None:
        yield f"The schemas of the registry {found.decoded.registry!r}: {_first(found.decoded.schemas)}."
    for kind, count in found.others.items():
        yield f"{kind[0].upper()}{kind[1:]} in {count:,}, such as {found.examples[kind]}: these become dead letters."
    if found.tombstones:
        yield f"Tombstones, which are skipped: {found.tombstones:,}."
    if found.envelope is not Envelope.NONE:
        yield f"The events are {found.envelope}." + (" Its schema is not stored." if found.envelope.has_schema else "")
    if found.are_rows:
        yield "The fields are the columns of the table that the events change."
        if not found.envelope.has_schema and found.decoded is None:
            yield (
                "The events have no schema, so columns of dates, times and decimals may be numbers and texts here: "
                "declare them with the types of docs/definitions.md, section change events of Debezium."
            )
    if found.types is not None:
        counts = ", ".join(f"{_printable(value)} ({count:,})" for value, count in found.types.counts.items())
        yield (
            f"The field {_printable(found.types.field)} distinguishes several types of events: {counts}. All land "
            "in one table, where the fields of the other types are null."
        )
    yield _printable(found.key.note)
    if found.headers:
        yield _printable(found.headers)


def _first(names: Sequence[str]) -> str:
    left = len(names) - _LISTED
    return ", ".join(map(_printable, names[:_LISTED])) + (f" and {left:,} more" if left > 0 else "")


def unknown(fields: Iterable[Field], path: str = "") -> Iterator[str]:
    """The fields of which the sample does not show the type, with the reason."""
    for field in fields:
        name = f"{path}{_printable(field.name)}"
        declared = field.type
        if declared == ANY or declared == ListOf(ANY):
            yield f"{name}: {'; '.join(map(_printable, field.notes))}"
        while isinstance(declared, ListOf):
            declared, name = declared.item, f"{name}[]"
        if isinstance(declared, Struct):
            yield from unknown(declared.fields, f"{name}.")


def _docstring(name: str, sample: Sample, found: Profile) -> Iterator[str]:
    yield f'"""The stream {name}: the events of the topic {found.topic}. Describe here what they are.'
    yield ""
    partitions = "1 partition" if sample.partitions == 1 else f"{sample.partitions:,} partitions"
    cut = f" ({sample.cut})" if sample.cut else ""
    yield from _wrapped(
        f"./millrace new stream wrote this file from {found.records:,} records of {sample.offsets:,} offsets in "
        f"{partitions}{cut}: from the beginning of each partition, from its end and from between. What they have in "
        "common may not hold for the others. A record that does not fit becomes a dead letter; ./millrace check "
        f"{name} --against-topic reads a sample again and shows which do not fit."
    )
    yield ""
    for line in summary(found):
        yield from _wrapped(f"- {line}", "  ")
    if not_known := list(unknown(found.fields)):
        yield ""
        yield "Not known from the sample:"
        yield ""
        for line in not_known:
            yield from _wrapped(f"- {line}", "  ")
    yield '"""'


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return textwrap.wrap(escaped, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _about_event(found: Profile) -> str:
    if found.are_rows:
        return "One row of the table."
    return (
        f"One event. A field without a number in its comment has a value in all {found.events:,} events of the sample."
    )


def _imports(written: EventSource) -> Iterator[str]:
    yield "from __future__ import annotations"
    yield ""
    own = sorted(module for module in written.imports if module.startswith("include."))
    others = sorted(module for module in written.imports if not module.startswith("include."))
    for module in others:
        yield from _import(module, written.imports[module])
    if others:
        yield ""
    yield "import msgspec"
    yield ""
    for module in own:
        yield from _import(module, written.imports[module])


def _import(module: str, names: Iterable[str]) -> Iterator[str]:
    """The lines that import names of one module, in the order of import sorters."""
    # Constants come before classes.
    plain = sorted((name for name in names if " as " not in name), key=lambda name: (not name.isupper(), name))
    lines = [", ".join(plain)] if plain else []
    lines += [name for name in names if " as " in name]
    for line in sorted(lines, key=lambda line: (line.split()[0].strip(",").islower(), line)):
        code = f"from {module} import {line}"
        if len(code) <= WIDTH:
            yield code
            continue
        yield f"from {module} import ("
        yield from (f"    {name}," for name in line.split(", "))
        yield ")"


def _stream(name: str, event: str, found: Profile, written: EventSource, registry: str) -> Iterator[str]:
    time = found.time
    yield "stream = Stream("
    yield f"    name={literal(name)},"
    if found.topic != name:
        yield f"    topic={literal(found.topic)},"
    if found.are_rows:
        yield f"    envelope={literal(DEBEZIUM)},"
    yield f"    event={event},"
    if found.decoded is not None:
        yield f"    format={literal(str(found.decoded.format))},"
    if found.key.format is not None:
        yield f"    key_format={literal(str(found.key.format))},"
    if registry != REGISTRY and (found.decoded is not None or found.key.format is not None):
        yield f"    registry={literal(registry)},"
    for note in time.notes:
        yield from comment_lines(_printable(note))
    yield f"    event_time={_time_field(found, written)},"
    yield f"    partition={literal(time.partition)},  # the time that one partition of the table spans"
    yield f"    keep={literal(time.keep)},  # how long a partition is kept after its end"
    # Two times are compared only if the event has one.
    if time.field is not None:
        yield f"    late={literal(time.late)},  # an event may be this much older than its record in Kafka"
        yield f"    early={literal(time.early)},  # and this much newer"
    if found.row_key:
        yield from comment_lines(_printable(found.key.note))
        names = [literal(written.names[name]) for name in found.row_key]
        several = f"({', '.join(names)})"
        yield f"    key={names[0] if len(names) == 1 else several},"
        yield "    current=True,"
    elif found.key.field is not None:
        yield from comment_lines(_printable(found.key.note))
        yield f"    key={literal(written.names[found.key.field])},"
    yield ")"


def _time_field(found: Profile, written: EventSource) -> str:
    """The source of the definition's event time."""
    if found.time.field is None:
        return "RECORD_TIMESTAMP"
    # What is known of a change is not a field of the row.
    return literal(found.time.field if found.are_rows else written.names[found.time.field])


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
