"""A 64-bit hash of column values that is the same on every machine and in every release.

Integers, dates and timestamps go through SplitMix64's finaliser (Steele, Lea and Flood 2014), seeded by the salt;
values of other types go through BLAKE2b keyed by the salt, over their text in UTF-8.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

RULE = "splitmix64-blake2b/1"
_PIECE = 65_536


def hash64(column: pa.ChunkedArray, salt: str = "") -> NDArray[np.uint64]:
    """One hash for each value of a column without nulls, shape (rows,)."""
    import numpy as np
    import pyarrow as pa

    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    if (values := integers(column)) is not None:
        return _mixed(values, int.from_bytes(key[:8], "little"))
    texts = column.cast(pa.large_string()).to_pylist()
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8")


def integers(column: pa.ChunkedArray) -> NDArray[np.int64] | None:
    """The values of a column of integers, dates or times, without nulls, as integers; None of another type."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_date32(column.type):
        column = column.cast(pa.int32())
    if types.is_integer(column.type) or types.is_temporal(column.type):
        column = column.cast(pa.int64())
        # Its own way to numpy would import pandas, which takes 40 MB.
        values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return np.from_dlpack(values).view(np.int64)
    return None


def _mixed(values: NDArray[np.int64], key: int) -> Any:
    import numpy as np

    mixed = values.astype(np.uint64, copy=True)
    with np.errstate(over="ignore"):
        # In pieces that stay in the processor's cache from one step to the next.
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
