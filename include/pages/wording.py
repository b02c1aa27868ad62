"""Numbers, times and bytes as the pages write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "\N{EN DASH}"
_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60))
_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None) -> str:
    """A count with separators, such as 12,345."""
    return NOTHING if value is None else f"{value:,.0f}"


def figure(value: float | None) -> str:
    """A metric with four digits, such as 0.9474 or 52.31."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def evidence(value: float | None) -> str:
    """An e-value, as the verdicts' sentences write it: 26.1, 8,242, or 10^12."""
    if value is None:
        return NOTHING
    if value >= 1_000_000:
        return f"10^{math.floor(math.log10(value))}" if math.isfinite(value) else "more than 10^308"
    return f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"


def change(now: float | None, before: float | None) -> str:
    """The difference of two metrics with its sign; empty if one is unknown."""
    if now is None or before is None:
        return ""
    difference = now - before
    return "±0" if abs(difference) < 0.00005 else f"{difference:+.4f}".replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def rate(value: float | None) -> str:
    """Rows a second."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.1f}/s"


def size(value: int | None) -> str:
    """A number of bytes, such as 1.4 MB."""
    if value is None:
        return NOTHING
    amount, unit = float(value), 0
    while amount >= 1_000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1_000, unit + 1
    return f"{amount:,.0f} {_UNITS[unit]}" if not unit or amount >= 100 else f"{amount:.1f} {_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """A duration in its largest unit, such as 3 h, or 4.2 s."""
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    for unit, length in _SPANS:
        if seconds >= length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was."""
    if moment is None:
        return NOTHING
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 0:
        return f"in {span(-seconds)}"
    return "just now" if seconds < 5 else f"{span(seconds)} ago"


def moment(value: datetime | None) -> str:
    """A moment in UTC, to the second."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def until(value: datetime | None) -> str:
    """The end of an interval: a day, with its time unless that is midnight."""
    if value is None:
        return NOTHING
    utc = value.astimezone(UTC)
    return f"{utc:%Y-%m-%d}" if (utc.hour, utc.minute, utc.second) == (0, 0, 0) else f"{utc:%Y-%m-%d %H:%M}"


def text_of(content: bytes | memoryview | None) -> str:
    """Bytes of a record as text: UTF-8 with its control characters escaped, or else hexadecimal."""
    if content is None:
        return "null"
    held = bytes(content)
    try:
        text = held.decode()
    except UnicodeDecodeError:
        return held.hex(" ")
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
