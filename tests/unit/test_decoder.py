"""The decoder of events: times of ISO 8601, the limit of nesting, and errors."""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from include.landing import decoder
from include.landing.decoder import MAX_DEPTH, Decoder
from include.streams.definition import Instant

TEN = datetime(2026, 1, 15, 10, tzinfo=UTC)
WRITTEN = "2026-01-15T10:00Z"


class Part(msgspec.Struct, tag="part"):
    at: Instant
    more: Part | None = None


class Listed(msgspec.Struct, tag="listed", array_like=True):
    number: int
    at: Instant


class Other(msgspec.Struct, tag="other"):
    at: str


class Event(msgspec.Struct, rename="camel"):
    at_first: Instant
    text: str = ""
    exact: Decimal = Decimal(0)
    real: float | None = None
    many: list[Instant | None] = []
    by_time: dict[Instant, list[Instant]] = {}
    pair: tuple[int, Instant] | None = None
    part: Part | Other | None = None
    listed: Listed | None = None
    clock: time | None = None
    anything: Any = None
    raw: msgspec.Raw = msgspec.Raw(b"")


def decoded(fields: str) -> Any:
    events, bad = Decoder(Event).events([f'{{"atFirst": "{WRITTEN}"{fields}}}'.encode()])
    return bad[0] if bad else events[0]


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ("", "at_first", TEN),
        (f', "many": ["{WRITTEN}", null]', "many", [TEN, None]),
        (f', "byTime": {{"{WRITTEN}": ["{WRITTEN}"]}}', "by_time", {TEN: [TEN]}),
        (f', "pair": [1, "{WRITTEN}"]', "pair", (1, TEN)),
        (f', "part": {{"type": "part", "at": "{WRITTEN}"}}', "part", Part(TEN)),
        (f', "part": {{"type": "other", "at": "{WRITTEN}"}}', "part", Other(WRITTEN)),
        (f', "listed": ["listed", 1, "{WRITTEN}"]', "listed", Listed(1, TEN)),
        (', "clock": "10:00"', "clock", time(10)),
        (', "clock": "10:00Z"', "clock", time(10, tzinfo=UTC)),
    ],
)
def test_times_are_rewritten_where_the_event_declares_them(fields: str, name: str, expected: Any) -> None:
    assert getattr(decoded(fields), name) == expected


def test_other_values_are_not_rewritten() -> None:
    event = decoded(
        f', "text": "{WRITTEN}", "anything": ["{WRITTEN}", 1], "exact": 1.00000000000000000000000001'
        f', "raw": {{"a": 1e400, "b": "{WRITTEN}"}}, "unknown": "{WRITTEN}"'
    )
    assert (event.text, event.anything) == (WRITTEN, [WRITTEN, 1])
    assert event.exact == Decimal("1.00000000000000000000000001")
    assert bytes(event.raw) == f'{{"a":1e400,"b":"{WRITTEN}"}}'.encode()


@pytest.mark.parametrize("fields", [', "real": NaN', ', "real": Infinity', ", ", ', "text": "\ud800"', ', "text": 5'])
def test_other_errors_stay_errors(fields: str) -> None:
    value = f'{{"atFirst": "{WRITTEN}"{fields}}}'.encode("utf-8", "surrogatepass")
    events, bad = Decoder(Event).events([value])
    assert (events, list(bad)) == ([], [0])


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ('{"atFirst": 1700000000}', "EpochSeconds, EpochMillis"),
        ('{"atFirst": 1700000000.5}', "EpochSeconds, EpochMillis"),
        ('{"atFirst": "2026-01-15T10:00:00"}', 'Zone("Europe/Berlin")'),
        ('{"atFirst": "soon"}', ""),
        ('{"atFirst": null}', ""),
    ],
)
def test_the_reason_says_how_to_declare_another_notation_of_a_time(value: str, hint: str) -> None:
    _, bad = Decoder(Event).events([value.encode()])
    assert hint in bad[0] and ("; " in bad[0]) is bool(hint)


def test_times_of_deep_structs_are_rewritten() -> None:
    def nested(levels: int) -> str:
        inner = f', "more": {nested(levels - 1)}' if levels else ""
        return f'{{"type": "part", "at": "{WRITTEN}"{inner}}}'

    event = decoded(f', "part": {nested(MAX_DEPTH - 3)}')
    assert event.part.more.more.at == TEN


@pytest.mark.parametrize(
    ("text", "is_too_deep"),
    [
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, False),
        (b"[" * (MAX_DEPTH + 1), True),
        (b"[{}" * MAX_DEPTH, True),
        (b"[" + b"[],{}," * MAX_DEPTH, False),
        (b'"' + b"[" * 5_000 + b'"', False),
        (b'"\\"' + b"[" * 5_000 + b'"', False),
        (b'"\\\\"' + b"[" * 5_000, True),
        (b"", False),
    ],
)
def test_brackets_in_texts_are_not_counted(text: bytes, is_too_deep: bool) -> None:
    assert decoder.is_too_deep(text) is is_too_deep


def test_ctrl_c_is_not_an_error_of_the_record() -> None:
    class Interrupted(msgspec.Struct):
        def __post_init__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Decoder(Interrupted).events([b"{}"])
