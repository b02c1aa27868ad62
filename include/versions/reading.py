"""Reading a sealed version: exactly the listed messages, each proven before its rows are used, or a refusal by name."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import LastingError
from include.kafka.reader import Stalled, place, read_range
from include.kafka.stops import LogTruncated, OffsetsGone, TopicMissing
from include.versions.manifest import PUBLICATION_HEADER, Column, Manifest, Message, Role

if TYPE_CHECKING:
    import confluent_kafka
    import pyarrow as pa

STABLE_WITHIN_S = 30.0

log = logging.getLogger(__name__)


class Refused(LastingError):
    """A version cannot be trained on; ``reason`` names why in a word.

    Reasons: ``trimmed`` (retention or somebody removed messages), ``short`` (listed messages are missing), ``altered``
    (a message is not what was sealed), ``unlisted`` (a message claims the version and is not in its list), ``open``
    (the range lies behind an open transaction).
    """

    def __init__(self, manifest: Manifest, reason: str, what: str) -> None:
        super().__init__(f"Version {manifest.short} of {manifest.dataset!r} is refused, {reason}: {what}")
        self.reason = reason


@dataclass(frozen=True)
class Rows:
    """The proven rows of a version, in the order and with the types of their publishing.

    Attributes:
        train: Rows to train on.
        test: Rows to test on.
        foreign: Messages of others that lay between those of the version, and were skipped.
    """

    train: pa.Table
    test: pa.Table
    foreign: int


def read(manifest: Manifest) -> Rows:
    """All rows of a version.

    Raises:
        Refused: The version is not what its manifest says.
        UserError: Kafka does not answer.
    """
    import pyarrow as pa

    batches: dict[Role, dict[int, pa.RecordBatch]] = {"train": {}, "test": {}}
    proof = Proof(manifest)
    for message, batch in proof.batches():
        batches[message.split][message.batch] = batch
    train, test = (pa.Table.from_batches([part[n] for n in sorted(part)]) for part in batches.values())
    return Rows(train, test, proof.foreign)


class Proof:
    """One reading of a version.

    Attributes:
        foreign: Messages of others met so far.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.foreign = 0
        self._missing = {(m.partition, m.offset): m for m in manifest.messages}

    def batches(self) -> Iterator[tuple[Message, pa.RecordBatch]]:
        """Each listed message with its rows, as it arrives: in offset order within a partition.

        Raises:
            Refused: At the first message that does not fit, or at the end when one is missing.
        """
        for message in self._messages():
            listed = self._missing.pop(place(message), None)
            if listed is None:
                self._skip(message)
                continue
            yield listed, self._proven(listed, message)
        if self._missing:
            first = min(self._missing)
            raise self._refused(
                "short", f"{len(self._missing)} listed messages are missing, the first {_at(self.manifest, *first)}."
            )

    def _messages(self) -> Iterator[confluent_kafka.Message]:
        ranges: dict[int, tuple[int, int]] = {}
        for m in self.manifest.messages:
            first, end = ranges.get(m.partition, (m.offset, m.offset))
            ranges[m.partition] = (min(first, m.offset), max(end, m.offset + 1))
        try:
            for messages in read_range(self.manifest.topic, ranges, most=64, stalled_after_s=STABLE_WITHIN_S):
                yield from messages
        except (OffsetsGone, TopicMissing) as error:
            raise self._refused("trimmed", str(error)) from error
        except LogTruncated as error:
            raise self._refused("short", str(error)) from error
        except Stalled as error:
            raise self._refused("open", str(error)) from error

    def _proven(self, listed: Message, message: confluent_kafka.Message) -> pa.RecordBatch:
        import pyarrow as pa

        where = _at(self.manifest, listed.partition, listed.offset)
        value = message.value() or b""
        if hashlib.sha256(value).hexdigest() != listed.sha256:
            raise self._refused("altered", f"the message {where} does not have the SHA-256 that was sealed.")
        try:
            with pa.ipc.open_stream(value) as reader:
                batches = list(reader)
        except pa.ArrowInvalid as error:
            raise self._refused("altered", f"the message {where} is no Arrow stream: {error}.") from error
        if len(batches) != 1:
            raise self._refused("altered", f"the message {where} holds {len(batches)} record batches, not one.")
        if batches[0].num_rows != listed.rows:
            raise self._refused("altered", f"the message {where} holds {batches[0].num_rows} rows, not {listed.rows}.")
        columns = [Column(field.name, str(field.type)) for field in batches[0].schema]
        if columns != self.manifest.columns:
            raise self._refused("altered", f"the message {where} has another schema than the manifest.")
        return batches[0]

    def _skip(self, message: confluent_kafka.Message) -> None:
        if dict(message.headers() or []).get(PUBLICATION_HEADER) == self.manifest.publication.encode():
            where = _at(self.manifest, *place(message))
            raise self._refused("unlisted", f"the message {where} claims the version and is not in its list.")
        self.foreign += 1

    def _refused(self, reason: str, what: str) -> Refused:
        return Refused(self.manifest, reason, what)


def _at(manifest: Manifest, partition: int, offset: int) -> str:
    return f"at {manifest.topic}, partition {partition}, offset {offset},"
