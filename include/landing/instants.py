"""The instants of a column of times: what events hold, in its notation, as microseconds since 1970.

A whole column is converted at once. Only if that fails, its values are converted one by one, to name the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.landing.spans import MICROSECOND, UNIX_EPOCH, moment_of
from include.streams.times import EPOCHS, Epoch, LocalTime, Midnight, Notation

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = int | float | str
Instants = Callable[[Sequence[Any]], pa.Array]
"""Converts a column of times to int64[n], with nulls; raises an exception if a value is not a time."""

_PER_SECOND = 1_000_000
_HOUR_US = 3_600 * _PER_SECOND
_INT64 = 2**63 - 1
_EXACT_FLOATS = 2**53
_MAX_SHOWN = 40
# As in JSON; more digits cannot be a time.
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# Multiplied to microseconds, larger numbers would not fit into 64 bits. They are beyond the year 9999 in any unit.
_MAX_MICROSECONDS = 10**18


def converter(notation: Notation | None) -> Instants:
    """The function that converts a column in this notation; None stands for moments with a time zone."""
    if isinstance(notation, Epoch):
        return partial(of_numbers, unit=notation)
    if isinstance(notation, LocalTime):
        return partial(of_local_times, place=notation)
    return of_dates if isinstance(notation, Midnight) else of_moments


def of_moments(moments: Sequence[datetime | None]) -> pa.Array:
    """Moments, exactly. Raises TypeError for one without a time zone."""
    return pa.array([None if moment is None else moment - UNIX_EPOCH for moment in moments], pa.duration("us")).view(
        pa.int64()
    )


def of_dates(dates: Sequence[date | None]) -> pa.Array:
    """The moments at which dates begin in UTC."""
    return pa.array(dates, pa.date32()).cast(pa.timestamp("us")).view(pa.int64())


def of_numbers(numbers: Sequence[Number | None], unit: Epoch) -> pa.Array:
    """Numbers since 1970 in a unit, also as texts. Parts of a microsecond are cut off, those of a float rounded.

    Raises:
        ValueError: A value is not a number, is a plausible time in another unit only, or not within the years 1 to
            9999.
    """
    array = _column(numbers)
    if array is None:
        array = _column([_parsed(number, unit) if isinstance(number, str) else number for number in numbers])
    if array is not None and _fits(array.drop_null().to_numpy(), unit):
        return _with_nulls(_scaled(array.fill_null(0).to_numpy(zero_copy_only=False), unit), array)
    return pa.array([None if number is None else _microseconds(number, unit) for number in numbers], pa.int64())


def of_local_times(times: Sequence[datetime | None], place: LocalTime) -> pa.Array:
    """Times by the clocks of a place; those with a time zone of their own keep it.

    Of a time that occurs twice, when clocks are set back, it is the first.

    Raises:
        ValueError: A time does not exist: clocks were set forward over it.
    """
    if {None if time is None else time.tzinfo for time in times} - {None}:
        return pa.array([None if time is None else _instant(time, place) for time in times], pa.int64())
    array = pa.array(times, pa.timestamp("us"))
    local = array.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    hours, at = np.unique(local // _HOUR_US, return_inverse=True)
    offsets = [_offset(int(hour), place) for hour in hours]
    if None in offsets:
        # The clocks were set within one of these hours.
        return pa.array([None if time is None else _instant(time, place) for time in times], pa.int64())
    return _with_nulls(local - np.array(offsets, np.int64)[at], array)


def _with_nulls(values: NDArray[np.int64], like: pa.Array) -> pa.Array:
    """Values as an array with nulls where another one has them."""
    return pa.array(values, mask=like.is_null().to_numpy(zero_copy_only=False) if like.null_count else None)


def _column(numbers: Sequence[Number | None]) -> pa.Array | None:
    """The numbers, exactly, as int64 or float64; None if some are texts or too large."""
    try:
        # Without a type: with the type int64, Arrow would cut off fractions.
        array = pa.array(numbers)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    if pa.types.is_null(array.type):
        return array.cast(pa.int64())
    if pa.types.is_float64(array.type):
        ends = pc.min_max(array).as_py()
        # A whole number among floats would be rounded.
        return array if max(-ends["min"], ends["max"]) < _EXACT_FLOATS else None
    return array if pa.types.is_int64(array.type) else None


def _fits(values: NDArray[Any], unit: Epoch) -> bool:
    """Whether no number is a plausible time in another unit only, and none is too large."""
    if not len(values):
        return True
    least, greatest = values.min().item(), values.max().item()
    first, end = unit.plausible
    if first <= least and greatest < end:
        return True
    if max(-least, greatest) > min(_MAX_MICROSECONDS // _PER_SECOND * unit.per_second, _INT64 - 1):
        return False
    if unit.is_certain:
        return True
    others = (other.plausible for other in EPOCHS if other != unit)
    return not any(((first <= values) & (values < end)).any() for first, end in others)


def _scaled(values: NDArray[Any], unit: Epoch) -> NDArray[np.int64]:
    """Numbers in a unit as microseconds."""
    whole = values if values.dtype.kind == "i" else np.floor(values).astype(np.int64)
    if unit.per_second > _PER_SECOND:
        # PostgreSQL keeps whole microseconds.
        return whole // (unit.per_second // _PER_SECOND)
    factor = _PER_SECOND // unit.per_second
    found: NDArray[np.int64] = whole * factor
    if values.dtype.kind == "f":
        # The fraction of a float is exact, but its product with a large whole number is not.
        found += np.rint((values - whole) * factor).astype(np.int64)
    return found


def _microseconds(number: Number, unit: Epoch) -> int:
    value = _parsed(number, unit) if isinstance(number, str) else number
    if not -_INT64 < value < _INT64:
        raise ValueError(f"{_shown(number)} is not a time in {unit.unit}: it is outside of the years 1 to 9999")
    values = np.array([value])
    if _fits(values, unit):
        return int(_scaled(values, unit)[0])
    for other in () if unit.is_certain else EPOCHS:
        first, end = other.plausible
        if first <= value < end:
            moment = _text(int(_scaled(values, other)[0]))
            raise ValueError(f"{_shown(number)} is not a time in {unit.unit}; in {other.unit} it is {moment}")
    raise ValueError(f"{_shown(number)} is not a time in {unit.unit}: it is outside of the years 1 to 9999")


def _parsed(text: str, unit: Epoch) -> int | float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:_MAX_SHOWN]!r} is not a number of {unit.unit}")
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _shown(number: Number) -> str:
    try:
        return str(number)[:_MAX_SHOWN]
    except ValueError:  # Python does not write an integer of thousands of digits
        return "a number of thousands of digits"


def _text(microseconds: int) -> str:
    """The second of a moment."""
    return f"{moment_of(microseconds):%Y-%m-%dT%H:%M:%SZ}"


def _instant(time: datetime, place: LocalTime) -> int:
    """A time in microseconds since 1970. Raises ValueError for one that does not exist."""
    if time.tzinfo is not None:
        return (time - UNIX_EPOCH) // MICROSECOND
    first, second = (_offset_at(time, place, fold) for fold in (0, 1))
    # Before the clocks are set forward, the offset is smaller than after.
    if first < second:
        raise ValueError(f"{time.isoformat()} does not exist in {place.zone}: clocks were set forward over it")
    return (time.replace(tzinfo=UTC) - UNIX_EPOCH) // MICROSECOND - first


def _offset_at(time: datetime, place: LocalTime, fold: int) -> int:
    offset = time.replace(tzinfo=place.info, fold=fold).utcoffset()
    return cast(timedelta, offset) // MICROSECOND


def _offset(hour: int, place: LocalTime) -> int | None:
    """The difference from UTC during an hour since 1970, local time, in microseconds; None if it changes."""
    start = datetime(1970, 1, 1) + timedelta(hours=hour)
    end = start + (timedelta(hours=1) - MICROSECOND)
    offsets = {_offset_at(time, place, fold) for time in (start, end) for fold in (0, 1)}
    return offsets.pop() if len(offsets) == 1 else None
