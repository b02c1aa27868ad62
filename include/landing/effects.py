"""What the records of a batch change in the current state: the key of each record that lands or deletes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from include.errors import NonRetryableError
from include.landing import copy, decoders, state
from include.landing.copy import Rows
from include.landing.dead_letters import NO_STAMP
from include.landing.latest import Latest, Moved, last, numbers
from include.landing.time_limits import NO_RECORD_TIME, record_times
from include.landing.tombstones import KeyDecoder
from include.streams.change_events import UNCHANGED
from include.streams.definition import Stream
from include.streams.keys import TOMBSTONE


@dataclass(frozen=True)
class Tombstones:
    """The tombstones of a batch that delete keys.

    Attributes:
        where: Their indices among the messages, int64.
        keys: Their keys, as ``KeyDecoder`` returns them.
        times: The times of their records in microseconds since 1970, int64.
    """

    where: NDArray[np.int64]
    keys: Sequence[Any]
    times: NDArray[np.int64]


NO_TOMBSTONES = Tombstones(np.zeros(0, np.int64), (), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Effects:
    """The keys of a batch's records; arrays have one element for each message.

    Attributes:
        numbers: The number of the key that a record sets or deletes, -1 for a record that changes no key; int64.
        orders: What orders the records; None for their coordinates. int64.
        tombstones: Whether the record deletes its key because it is a tombstone, bool.
        deleted: The tombstones as rows.
    """

    partitions: NDArray[np.int32]
    numbers: NDArray[np.int64]
    orders: NDArray[np.int64] | None
    tombstones: NDArray[np.bool_]
    deleted: Rows

    def latest(self, landed: NDArray[np.bool_], rows: Rows) -> Latest:
        """The last record of each key.

        Args:
            landed: Whether each record lands, bool.
            rows: The rows that land.

        Raises:
            Moved: The records of a key are in two partitions, and nothing orders them.
        """
        active = np.flatnonzero(landed | self.tombstones)
        orders = None if self.orders is None else self.orders[active]
        chosen = np.zeros(len(landed), bool)
        try:
            chosen[active[last(self.numbers[active], self.partitions[active], orders)]] = True
        except Moved as moved:
            raise Moved(int(active[moved.first]), int(active[moved.second])) from None
        return Latest(rows.only(chosen[landed]), self.deleted.only(chosen[self.tombstones]))


class Reducer:
    """Finds the effects of the batches of a stream that keeps its current state.

    Args:
        incarnation: The topic's incarnation number.
        topic: The topic.
    """

    def __init__(self, stream: Stream, incarnation: int, topic: str) -> None:
        columns = {column.name: column for column in copy.columns_of_stream(stream)}
        self._stream, self._incarnation, self._topic = stream, incarnation, topic
        self._key = tuple(columns[name] for name in stream.keys)
        self._order = columns.get(stream.order_by or "")
        self._keys = KeyDecoder(stream, self._key) if stream.deletes == TOMBSTONE else None

    @property
    def has_tombstones(self) -> bool:
        """Whether tombstones delete keys."""
        return self._keys is not None

    def tombstones(self, where: NDArray[np.int64], messages: Sequence[Message]) -> tuple[Tombstones, dict[int, str]]:
        """The tombstones among messages without a value, and for each other one the reason, by its index in the batch.

        Args:
            where: The indices of the messages in the batch.
        """
        if self._keys is None or not len(where):
            return NO_TOMBSTONES, {}
        keys, bad = self._keys.keys_of(messages)
        stamps = np.fromiter((message.timestamp()[1] for message in messages), np.int64, len(messages))
        good = np.ones(len(where), bool)
        good[list(bad)] = False
        if self._stream.has_record_time and (stamps[good] == NO_STAMP).any():
            timed = stamps[good] != NO_STAMP
            keys = [key for key, is_timed in zip(keys, timed.tolist(), strict=True) if is_timed]
            bad |= dict.fromkeys(np.flatnonzero(good & (stamps == NO_STAMP)).tolist(), NO_RECORD_TIME)
            good &= stamps != NO_STAMP
        found = Tombstones(where[good], keys, record_times(stamps[good]))
        return found, {int(where[index]): reason for index, reason in bad.items()}

    def effects(
        self,
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        landed: tuple[NDArray[np.int64], Sequence[Any], NDArray[np.int64]],
        tombstones: Tombstones,
    ) -> Effects:
        """The effects of a batch.

        Args:
            partitions, offsets: Those of each message.
            landed: The indices of the messages that land, their events, and the times of these.
        """
        where, events, times = landed
        found = np.full(len(partitions), -1)
        found[np.concatenate((where, tombstones.where))] = numbers(self._key, events, tombstones.keys)
        orders = None
        if self._stream.order_by is not None:
            orders = np.zeros(len(partitions), np.int64)
            # Only a stream whose records are ordered by their timestamps has tombstones, too.
            orders[tombstones.where] = tombstones.times
            orders[where] = times if self._order is None else _whole(self._order, events)
        is_tombstone = np.zeros(len(partitions), bool)
        is_tombstone[tombstones.where] = True
        deleted = self._deleted(partitions[tombstones.where], offsets[tombstones.where], tombstones)
        return Effects(partitions, found, orders, is_tombstone, deleted)

    def cuts(self, effects: Effects, landed: NDArray[np.int64], events: Sequence[Any]) -> list[int]:
        """The indices of the messages before which the batch must be cut into transactions.

        A change event may not have the values of columns that did not change. The state then keeps those that it has,
        so they must be in the state: an event with other values of the key is written before.

        Args:
            landed: The indices of the messages that land.
            events: Their events.
        """
        if self._stream.changes is None or not any(map(_unchanged, events)):
            return []
        found: list[int] = []
        seen: dict[int, Any] = {}
        is_ordered = self._stream.order_by is None
        for index, number, event in zip(landed.tolist(), effects.numbers[landed].tolist(), events, strict=True):
            unchanged = _unchanged(event)
            if seen.setdefault(number, unchanged) != unchanged and (unchanged or not is_ordered):
                found.append(index)
                seen = {}
            seen[number] = unchanged
        return found

    def moved(self, first: Message, second: Message) -> NonRetryableError:
        """The error for two records of one key in different partitions of the topic."""
        value = second.value()
        if value is None and self._keys is not None:
            (key,), _ = self._keys.keys_of([second])
        else:
            key = decoders.events_of(decoders.of(self._stream), [value or b""], [second])[0][0]
        values = [column.read([key])[0] for column in self._key]
        return state.moved(self._stream, values, int(first.partition() or 0), int(second.partition() or 0))

    def _deleted(self, partitions: NDArray[np.int32], offsets: NDArray[np.int64], tombstones: Tombstones) -> Rows:
        """Tombstones as rows, in the columns ``state.columns_of_tombstones``."""
        before: list[tuple[str | None, Any]] = [(">i2", self._incarnation), (">i4", partitions), (">i8", offsets)]
        if self._stream.has_record_time:
            before.append((">i8", tombstones.times - copy.POSTGRES_EPOCH_US))
        if self._stream.topics is not None:
            before.append(copy.constant(self._topic))
        return copy.buffer(self._key, tombstones.keys, [*before, ("?", True)])


_unchanged = attrgetter(UNCHANGED)


def _whole(column: copy.Column, events: Sequence[Any]) -> NDArray[np.int64]:
    """The values of a column of times or whole numbers."""
    found: NDArray[np.int64] = column.array(column.read(events)).to_numpy(zero_copy_only=False)
    return found
