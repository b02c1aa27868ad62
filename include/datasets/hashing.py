"""A 64-bit hash of column values that is the same on every machine, in every release and for every type of column.

A record's identity must not depend on the column's type: one id ``A-2001`` turns a column of numbers into text, and one
empty field turns it into floats. Values that mean the same number or the same moment therefore have the same hash,
whether they are integers, floats, decimals, times or text.

Numbers and moments are hashed with SplitMix64's finaliser (Steele, Lea and Flood 2014), seeded by the salt. All other
values are hashed with BLAKE2b, keyed by the salt, over their text in UTF-8.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

RULE = "splitmix64-blake2b/2"
FIRST_RULE = "splitmix64-blake2b/1"
"""The rule of versions that older releases sealed: the hash depends on the column's type."""
RULES = (FIRST_RULE, RULE)

_PIECE = 65_536
_SHORT_INTEGER = r"^-?\d{1,18}$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_MOMENT = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
_TIME = r"^\d\d:\d\d(:\d\d(\.\d{1,9})?)?$"
# Longer numbers are hashed as text, so that an exponent cannot expand to thousands of digits.
_MAX_DIGITS = 40


def hash64(column: pa.Array | pa.ChunkedArray, salt: str = "", rule: str = RULE) -> NDArray[np.uint64]:
    """One hash for each value of a column without nulls, shape (rows,).

    Args:
        salt: Another salt gives other hashes.
        rule: One of ``RULES``.
    """
    import pyarrow as pa
    import pyarrow.types as types

    from include.datasets.sources.plain import plain

    column = plain(column, key=True)
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    seed = int.from_bytes(key[:8], "little")
    if rule == FIRST_RULE:
        values = integers(column)
        return _digests(column.cast(pa.large_string()).to_pylist(), key) if values is None else _mixed(values, seed)
    if types.is_timestamp(column.type) or types.is_date(column.type):
        column = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    elif types.is_time(column.type):
        column = column.cast(pa.time64("us"), safe=False)
    elif types.is_duration(column.type):
        column = column.cast(pa.duration("us"), safe=False)
    values = integers(column)
    return _by_meaning(column, key, seed) if values is None else _mixed(values, seed)


def identities(column: pa.Array | pa.ChunkedArray) -> list[NDArray[np.uint64]]:
    """The hashes of record ids under every rule that gives different ones; each of shape (rows,)."""
    found = [hash64(column)]
    if integers(column) is None or _is_temporal(column):
        found.append(hash64(column, rule=FIRST_RULE))
    return found


def integers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64] | None:
    """The values of a column of integers, dates or times, without nulls, in 64 bits each; None of another type.

    Unsigned values from 2^63 on keep their bits.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_date32(column.type) or types.is_time32(column.type):
        column = column.cast(pa.int32())
    if types.is_integer(column.type) or types.is_temporal(column.type):
        if not types.is_uint64(column.type):
            column = column.cast(pa.int64())
        # pyarrow's to_numpy would import pandas, which takes 40 MB.
        values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return np.from_dlpack(values).view(np.int64)
    return None


def _is_temporal(column: pa.Array | pa.ChunkedArray) -> bool:
    import pyarrow.types as types

    return bool(types.is_temporal(column.type))


def _by_meaning(column: pa.Array | pa.ChunkedArray, key: bytes, seed: int) -> NDArray[np.uint64]:
    """Hashes values that are not stored as integers: the number or moment that they mean, otherwise their text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_floating(column.type) or types.is_decimal(column.type):
        texts = pa.array(map(_without_fraction, column.to_pylist()), pa.large_string())
    else:
        texts = column.cast(pa.large_string())
    hashes = np.empty(len(texts), np.uint64)
    left = np.ones(len(texts), bool)
    for pattern, read in _READERS:
        matching = left & pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False).astype(bool)
        if not matching.any():
            continue
        values, meant = read(texts.filter(pa.array(matching)))
        places = np.flatnonzero(matching)[meant]
        hashes[places] = _mixed(values[meant], seed)
        left[places] = False
    if left.any():
        texts = texts.filter(pa.array(left))
        numbers = pc.match_substring_regex(texts, _NUMBER).to_pylist()
        pairs = zip(texts.to_pylist(), numbers, strict=True)
        hashes[left] = _digests([_shortest(text) if number else text for text, number in pairs], key)
    return hashes


def _digests(texts: Sequence[str], key: bytes) -> NDArray[np.uint64]:
    import numpy as np

    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8")


def _read_integers(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    import numpy as np
    import pyarrow as pa

    return texts.cast(pa.int64()).to_numpy(), np.ones(len(texts), bool)


def _read_texts(read: Callable[[str], int | None], texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The 64-bit values that ``read`` returns for texts, and whether it returns one; both of shape (texts,)."""
    import numpy as np

    values = [read(text) for text in texts.to_pylist()]
    bits = np.array([(value or 0) % 2**64 for value in values], np.uint64)
    return bits.view(np.int64), np.array([value is not None for value in values])


def _number(text: str) -> int | None:
    """The whole number of a text, if it fits into 64 bits."""
    value = Decimal(text)
    if value.adjusted() > _MAX_DIGITS or value != value.to_integral_value():
        return None
    whole = int(value)
    return whole if -(2**63) <= whole < 2**64 else None


def _moment(text: str) -> int | None:
    """The moment of a text, in microseconds since 1970, UTC."""
    try:
        moment = datetime.fromisoformat(_to_micros(text))
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _time(text: str) -> int | None:
    """The time of day of a text, in microseconds."""
    try:
        found = time.fromisoformat(_to_micros(text))
    except ValueError:
        return None
    return ((found.hour * 60 + found.minute) * 60 + found.second) * 1_000_000 + found.microsecond


def _to_micros(text: str) -> str:
    return re.sub(r"(\.\d{6})\d+", r"\1", text)


def _without_fraction(value: float | Decimal) -> str:
    """A float or decimal as text; a whole number without ``.0``."""
    text = str(value)
    return text[:-2] if text.endswith(".0") else text


def _shortest(text: str) -> str:
    """A number in its shortest notation."""
    value = Decimal(text)
    return format(value.normalize(), "f" if abs(value.adjusted()) <= _MAX_DIGITS else "e")


_READERS: Sequence[tuple[str, Callable[[pa.Array], tuple[NDArray[np.int64], NDArray[np.bool_]]]]] = (
    (_SHORT_INTEGER, _read_integers),
    (_NUMBER, partial(_read_texts, _number)),
    (_MOMENT, partial(_read_texts, _moment)),
    (_TIME, partial(_read_texts, _time)),
)


def _mixed(values: NDArray[np.int64], key: int) -> NDArray[np.uint64]:
    import numpy as np

    mixed = values.astype(np.uint64, copy=True)
    with np.errstate(over="ignore"):
        # In pieces that fit into the processor's cache.
        for start in range(0, len(mixed), _PIECE):
            z = mixed[start : start + _PIECE]
            z *= np.uint64(0x9E3779B97F4A7C15)
            z += np.uint64(key)
            z ^= z >> np.uint64(30)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(27)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
    return mixed
