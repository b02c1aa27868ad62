"""The last record of each key among some records, found by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.landing.copy import Column, Rows


@dataclass(frozen=True)
class Latest:
    """The rows that the state table of a stream gets from a transaction, one for each key.

    Attributes:
        rows: The last events of their keys, in the columns of the stream's table.
        tombstones: The keys whose last record is a tombstone, in the columns ``State.of_tombstones``.
    """

    rows: Rows
    tombstones: Rows


NO_ROWS = Rows(b"", np.zeros(1, np.int32))


class Moved(Exception):
    """Records of one key are in two partitions of the topic, and nothing orders them.

    Attributes:
        first, second: The indices of two of them.
    """

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second


def numbers(columns: Sequence[Column], *events: Sequence[Any]) -> NDArray[np.int64]:
    """Numbers the keys of events: events have the same number exactly if their keys are equal; int64[n].

    Args:
        columns: The columns of the key.
        events: Lists of events, one after the other.
    """
    found = np.zeros(sum(map(len, events)), np.int64)
    for column in columns:
        array = pa.concat_arrays([column.array(column.read(some)) for some in events])
        each = pc.dictionary_encode(array).indices.to_numpy().astype(np.int64)
        if column is columns[0]:
            found = each
        elif len(each):
            # Numbered again for each column, so that the product cannot overflow.
            _, found = np.unique(found * (each.max() + 1) + each, return_inverse=True)
    return found


def last(
    numbers: NDArray[np.int64],
    partitions: NDArray[Any],
    orders: NDArray[np.int64] | None,
    incarnations: NDArray[Any] | int = 0,
) -> NDArray[np.int64]:
    """The index of the last record of each key, in the order of the records; int64.

    Args:
        numbers: The number of each record's key.
        partitions: The partition of each record. Records are sorted by incarnation, partition and offset.
        orders: What orders the records; those with the same value are ordered by their coordinates. None orders all by
            their coordinates, which is possible within one partition.
        incarnations: The incarnation of each record, or of all.

    Raises:
        Moved: Nothing orders two records, because they are in two partitions of one incarnation.
    """
    sequence = np.arange(len(numbers)) if orders is None else np.argsort(orders, kind="stable")
    found = np.full(numbers.max(initial=-1) + 1, -1)
    # Of several values for one index, numpy keeps the last.
    found[numbers[sequence]] = sequence
    if orders is None:
        _require_one_partition(numbers, partitions, np.broadcast_to(incarnations, numbers.shape), found)
    return np.sort(found[found >= 0])


def _require_one_partition(
    numbers: NDArray[np.int64], partitions: NDArray[Any], incarnations: NDArray[Any], found: NDArray[np.int64]
) -> None:
    """Raises Moved if a record is in another partition than the last of its key in the same incarnation."""
    newest = found[numbers]
    moved = np.flatnonzero((partitions != partitions[newest]) & (incarnations == incarnations[newest]))
    if len(moved):
        raise Moved(int(moved[0]), int(newest[moved[0]]))
