"""Slices: parts of the test rows, cut by a column or an expression of the definition."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_PARTS = 50
"""The most values of one slice. More are usually numbers that were not grouped by mistake."""

MISSING = "missing"
"""The value of rows whose slice is null."""

log = logging.getLogger(__name__)


def sliced(rows: pa.Table, slices: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The value of each row in each slice, as text; arrays of shape (rows,).

    A slice that these rows do not have is left out with a warning: a version may be older than the definition, and a
    training must not fail for the lack of a table.

    Args:
        rows: Test rows, with all of their columns.
        slices: Those of the definition: name to column or expression.
    """
    frame = rows.to_pandas() if slices else None
    found = {}
    for name, expression in slices.items():
        assert frame is not None
        try:
            values = frame[expression] if expression in frame else frame.eval(expression)
            parts = _texts(values, len(frame))
            count = len(set(parts.tolist()))
        except Exception as error:
            log.warning("Slice %s (%s) cannot be computed for this version: %s.", name, expression, error)
            continue
        if count > MAX_PARTS:
            log.warning(
                "Slice %s (%s) has %d values, more than the %d allowed; group them with an expression.",
                *(name, expression, count, MAX_PARTS),
            )
            continue
        found[name] = parts
    return found


def plain_text(value: Any) -> str:
    """A value as guards write it: whole numbers without ``.0``, and no zero byte, which PostgreSQL rejects."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).replace("\x00", "\\x00")


def _texts(values: Any, rows: int) -> NDArray[Any]:
    """Each row's value as text, ``MISSING`` for null; shape (rows,)."""
    import numpy as np
    import pandas as pd

    if np.ndim(values) != 1 or len(values) != rows:
        raise ValueError("the expression does not return one value for each row")
    missing = pd.isna(values).tolist()
    plain = (MISSING if absent else plain_text(value) for value, absent in zip(values, missing, strict=True))
    return np.array(list(plain), dtype=object)
