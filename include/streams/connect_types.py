"""The types of Kafka Connect and Debezium that JSON has no types for: dates, times of day, decimals and JSON as texts.

Their documentation: "Data types" of Debezium's connectors, and ``org.apache.kafka.connect.data`` of Kafka Connect.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from include.streams.times import KEY, Epoch

_ENCODING = "millrace_encoding"
_UNIX_DAY = date(1970, 1, 1).toordinal()
_DAYS = (date.min.toordinal() - _UNIX_DAY, date.max.toordinal() - _UNIX_DAY)
_DAY_S = 86_400
_MAX_SCALE = 16_383


@dataclass(frozen=True)
class Days:
    """Dates as days since 1970."""

    sql = "date"
    names = ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date")

    def decode(self, value: int) -> date:
        """The date of a number. Raises ValueError for one that Python cannot hold."""
        first, last = _DAYS
        if not first <= value <= last:
            raise ValueError(f"{value} days since 1970 are outside of the years 1 to 9999")
        return date.fromordinal(value + _UNIX_DAY)


@dataclass(frozen=True)
class TimeOfDay:
    """Times of a day as numbers since midnight.

    Attributes:
        per_second: How many of them a second has.
        names: The names of the type in schemas.
    """

    per_second: int
    names: tuple[str, ...]
    sql = "time without time zone"

    def decode(self, value: int) -> time:
        """The time of a number; parts of a microsecond are cut off. Raises ValueError for one outside of a day."""
        seconds, part = divmod(value, self.per_second)
        if not 0 <= seconds < _DAY_S:
            raise ValueError(f"{value} is not a time of a day: a day has {_DAY_S * self.per_second:,} of these units")
        hours, rest = divmod(seconds, 3_600)
        return time(hours, rest // 60, rest % 60, part * 1_000_000 // self.per_second)


@dataclass(frozen=True)
class Unscaled:
    """Decimals as base64 of a big-endian whole number, whose scale only the schema has.

    Attributes:
        scale: The number of digits after the point.
    """

    scale: int
    sql = "numeric"
    names = ("org.apache.kafka.connect.data.Decimal",)

    def decode(self, value: str) -> Decimal:
        """The number of a text. Raises ValueError for one that is not base64."""
        return _decimal(value, self.scale)


class Scaled(msgspec.Struct, frozen=True):
    """A decimal with its scale, as Debezium writes numbers of columns without one."""

    scale: int
    value: str


@dataclass(frozen=True)
class VariableScale:
    """Decimals that have their scale with them."""

    sql = "numeric"
    names = ("io.debezium.data.VariableScaleDecimal",)

    def decode(self, value: Scaled) -> Decimal:
        """The number. Raises ValueError for a text that is not base64, or a scale that PostgreSQL cannot hold."""
        if not -_MAX_SCALE <= value.scale <= _MAX_SCALE:
            raise ValueError(f"PostgreSQL's numeric cannot hold the scale {value.scale}")
        return _decimal(value.value, value.scale)


@dataclass(frozen=True)
class Document:
    """JSON in a text."""

    sql = "jsonb"
    names = ("io.debezium.data.Json",)

    def decode(self, value: str) -> msgspec.Raw:
        """The JSON. Raises ValueError for a text that is not JSON."""
        text = value.encode()
        try:
            msgspec.json.decode(text, type=msgspec.Raw)
        except msgspec.DecodeError as error:
            raise ValueError(f"the text is not JSON: {error}") from None
        return msgspec.Raw(text)


Encoding = Days | TimeOfDay | Unscaled | VariableScale | Document
"""How a type of Connect is written in JSON; ``decode`` gives the value of the column."""

MILLIS = TimeOfDay(1_000, ("io.debezium.time.Time", "org.apache.kafka.connect.data.Time"))
MICROS = TimeOfDay(1_000_000, ("io.debezium.time.MicroTime",))
NANOS = TimeOfDay(1_000_000_000, ("io.debezium.time.NanoTime",))


def _meta(encoding: Encoding) -> Meta:
    return Meta(extra={_ENCODING: encoding})


def _declared(unit: str, per_second: int) -> Meta:
    return Meta(extra={KEY: Epoch(unit, per_second, is_certain=True)})


ConnectDate = Annotated[int, _meta(Days())]
"""A date as days since 1970: ``io.debezium.time.Date``, and Connect's ``Date``."""

ConnectTime = Annotated[int, _meta(MILLIS)]
"""A time of day as milliseconds: ``io.debezium.time.Time``, and Connect's ``Time``."""

MicroTime = Annotated[int, _meta(MICROS)]
"""A time of day as microseconds: ``io.debezium.time.MicroTime``."""

NanoTime = Annotated[int, _meta(NANOS)]
"""A time of day as nanoseconds: ``io.debezium.time.NanoTime``."""

ConnectTimestamp = Annotated[int, _declared("milliseconds", 1_000)]
"""A time as milliseconds since 1970: ``io.debezium.time.Timestamp``, and Connect's ``Timestamp``."""

MicroTimestamp = Annotated[int, _declared("microseconds", 1_000_000)]
"""A time as microseconds since 1970: ``io.debezium.time.MicroTimestamp``."""

NanoTimestamp = Annotated[int, _declared("nanoseconds", 1_000_000_000)]
"""A time as nanoseconds since 1970: ``io.debezium.time.NanoTimestamp``."""

VariableDecimal = Annotated[Scaled, _meta(VariableScale())]
"""A decimal with its scale: ``io.debezium.data.VariableScaleDecimal``."""

JsonText = Annotated[str, _meta(Document())]
"""JSON in a text: ``io.debezium.data.Json``."""


def ConnectDecimal(scale: int) -> Meta:
    """Connect's ``Decimal``, base64 of a whole number: ``Annotated[str, ConnectDecimal(2)]`` for ``numeric(10, 2)``.

    Args:
        scale: The number of digits after the point.

    Raises:
        ValueError: PostgreSQL cannot hold the scale.
    """
    if not isinstance(scale, int) or not -_MAX_SCALE <= scale <= _MAX_SCALE:
        raise ValueError(f"{scale!r} is not a number of digits after the point, such as 2")
    return _meta(Unscaled(scale))


def encoding_of(extra: dict[str, Any] | None) -> Encoding | None:
    """The encoding that the annotation of a field declares, from ``msgspec.inspect.Metadata.extra``."""
    found = (extra or {}).get(_ENCODING)
    return found if isinstance(found, Encoding) else None


def _decimal(text: str, scale: int) -> Decimal:
    try:
        unscaled = int.from_bytes(base64.b64decode(text, validate=True), "big", signed=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is not the base64 of a whole number: {error}") from None
    # Not by arithmetic, which would round to the digits of the context.
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))
