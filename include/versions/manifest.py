"""The manifest: the one record on the control topic that seals a dataset version by listing each of its messages.

Its format is described in docs/manifest.md, for producers that share no code with this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from blake3 import blake3
from msgspec import Meta, Struct

from include.errors import UserError

CONTROL_TOPIC = "millrace.manifests"
PUBLICATION_HEADER = "millrace-publication"

Role = Literal["train", "test"]
SPLITS: tuple[Role, ...] = ("train", "test")
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_WIDTHS = {
    **dict.fromkeys(("int8", "uint8"), 1),
    **dict.fromkeys(("int16", "uint16", "halffloat"), 2),
    **dict.fromkeys(("int32", "uint32", "float", "date32", "time32"), 4),
    **dict.fromkeys(("int64", "uint64", "double", "date64", "time64", "timestamp", "duration"), 8),
}


class Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One Kafka message of a version: an Arrow IPC stream with one record batch.

    Its value has one digest of 256 bits, in hexadecimal. Millrace itself writes BLAKE3, which takes less than half the
    time of SHA-256; most languages bring SHA-256 with them.

    Attributes:
        partition: Where it lies.
        offset: Its offset there.
        split: Whether its rows train or test.
        batch: Its place among the batches of its split, from 0.
        rows: How many rows it holds.
        sha256: The value's SHA-256, or None.
        blake3: The value's BLAKE3, or None.
    """

    partition: Partition
    offset: Count
    split: Role
    batch: Count
    rows: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    sha256: Digest | None = None
    blake3: Digest | None = None

    def __post_init__(self) -> None:
        if (self.sha256 is None) == (self.blake3 is None):
            raise ValueError("a message needs one digest, either sha256 or blake3")

    @property
    def digest(self) -> str:
        """As the version's id has it: ``blake3:`` before a BLAKE3, nothing before a SHA-256."""
        return f"blake3:{self.blake3}" if self.sha256 is None else self.sha256

    def is_of(self, value: bytes) -> bool:
        """Whether this is the value that was sealed."""
        if self.blake3 is not None:
            return blake3(value).hexdigest() == self.blake3
        return hashlib.sha256(value).hexdigest() == self.sha256


class Column(Struct, frozen=True):
    """A column's name and its Arrow type as Arrow writes it, such as ``double`` or ``timestamp[us]``."""

    name: str
    type: str


class Interval(Struct, frozen=True):
    """The data interval that a version was made for, [start, end) in UTC; None where it is open."""

    start: datetime | None = None
    end: datetime | None = None


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sealed dataset version.

    Attributes:
        format: Always ``millrace.manifest/1``.
        dataset: The dataset's name.
        version: The version's id: SHA-256 of the list of messages, see ``version_id``.
        publication: The value of the header ``millrace-publication`` of all of its messages, and of no others.
        topic: Where the messages lie.
        kind: What is predicted: classes or a number.
        record_id: The column that names a record.
        event_time: The column that says when it happened, if any.
        target: The column to predict.
        features: The columns to learn from.
        columns: The schema of every batch.
        split: The rule that divided the rows; those of three kinds are proven, see ``leakage``.
        classes: The target's values in ascending order; empty for a regression.
        rows: The number of rows by split.
        messages: Every message of the version.
        content: A digest of what was published, whenever and wherever: rows, split, roles of the columns.
        source: Where the rows came from.
        interval: The data interval.
        code: Version of the code that published.
        asked_by: The person or the schedule behind it.
        parameters: What that person filled in, or was filled in by default.
    """

    format: Literal["millrace.manifest/1"] = "millrace.manifest/1"
    dataset: str
    version: Digest
    publication: Annotated[str, Meta(min_length=1)]
    topic: str
    kind: Literal["classification", "regression"]
    record_id: str
    event_time: str | None = None
    target: str
    features: Annotated[list[str], Meta(min_length=1)]
    columns: list[Column]
    split: dict[str, Any]
    classes: list[str | int | float | bool] = []
    rows: dict[Role, Count]
    messages: Annotated[list[Message], Meta(min_length=1)]
    content: str = ""
    source: str = ""
    interval: Interval = Interval()
    code: str = ""
    asked_by: str = ""
    parameters: dict[str, Any] = {}

    def of(self, split: Role) -> list[Message]:
        """The messages of one split, in batch order."""
        return sorted((m for m in self.messages if m.split == split), key=lambda message: message.batch)

    def starts(self) -> dict[Message, int]:
        """For each message, the number of its first row among those of its split."""
        starts = {}
        for split in SPLITS:
            rows = 0
            for message in self.of(split):
                starts[message] = rows
                rows += message.rows
        return starts

    @property
    def short(self) -> str:
        """The first twelve digits of the version, for people."""
        return self.version[:12]


def width(type_: str) -> int:
    """The bytes of a value of an Arrow type as a manifest names it; 0 where values have no fixed number of them.

    Types of which that is not known here are assembled as well, only not as fast.
    """
    return _WIDTHS.get(type_.partition("[")[0], 0)


def version_id(topic: str, messages: Iterable[Message]) -> str:
    """SHA-256, in hexadecimal, of the topic's name and the messages, one a line, ordered by partition and offset.

    A line is ``partition offset split batch rows digest``; every line, the topic's included, ends with a newline.
    """
    lines = [topic]
    for m in sorted(messages, key=lambda message: (message.partition, message.offset)):
        lines.append(f"{m.partition} {m.offset} {m.split} {m.batch} {m.rows} {m.digest}")
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return msgspec.json.encode(manifest)


def decode(value: bytes | None) -> Manifest:
    """Reads a manifest and proves that it agrees with itself.

    Raises:
        UserError: It is no manifest, or it contradicts itself.
    """
    if value is None:
        raise UserError("The record is a tombstone, not a manifest.")
    try:
        manifest = msgspec.json.decode(value, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The record is no manifest: {error}.", "See docs/manifest.md for the format.") from error
    _require(manifest)
    return manifest


def _require(manifest: Manifest) -> None:
    if manifest.version != version_id(manifest.topic, manifest.messages):
        raise UserError("The manifest's version is not the SHA-256 of its messages.")
    if len({(m.partition, m.offset) for m in manifest.messages}) < len(manifest.messages):
        raise UserError("The manifest lists an offset twice.")
    for split in ("train", "test"):
        listed = manifest.of(split)
        rows = sum(m.rows for m in listed)
        if rows != manifest.rows.get(split, 0):
            raise UserError(f"The manifest says {manifest.rows.get(split, 0)} {split} rows, its messages hold {rows}.")
        if not rows:
            raise UserError(f"The manifest has no {split} rows.", "A version needs rows of both splits.")
        if [m.batch for m in listed] != list(range(len(listed))):
            raise UserError(f"The manifest's {split} batches are not numbered 0 to {len(listed) - 1}.")
    names = [column.name for column in manifest.columns]
    needed = [manifest.record_id, manifest.target, *manifest.features]
    needed += [manifest.event_time] if manifest.event_time is not None else []
    if missing := set(needed) - set(names):
        raise UserError(f"The manifest's schema lacks {', '.join(sorted(missing))}.")
    for what, columns in (("schema", names), ("list of features", manifest.features)):
        if len(set(columns)) < len(columns):
            raise UserError(f"The manifest's {what} names a column twice.")
    if manifest.target == manifest.record_id:
        raise UserError(f"The manifest's target {manifest.target!r} is its record_id, too.")
    if manifest.target in manifest.features:
        raise UserError(f"The manifest names its target {manifest.target!r} among the features.")
    _require_split(manifest, names)
    for moment in (manifest.interval.start, manifest.interval.end):
        try:
            _ = moment and moment.tzinfo and moment.astimezone(UTC)
        except OverflowError:
            raise UserError(f"The manifest's interval has the bound {moment}, which is no time in UTC.") from None


def _require_split(manifest: Manifest, columns: list[str]) -> None:
    """Refuses a rule of a kind that readers prove when it cannot be followed."""
    from include.datasets.hashing import RULES

    rule = manifest.split
    if rule.get("kind") not in ("time", "hash", "group") or "column" not in rule:
        return
    if not isinstance(rule.get("column"), str) or rule["column"] not in columns:
        raise UserError(
            f"The manifest's split is one by {rule['kind']}, and the schema lacks its column, {rule.get('column')!r}."
        )
    if rule["kind"] != "time" and rule.get("hash") in RULES:
        share = rule.get("test")
        if not isinstance(rule.get("salt"), str) or not isinstance(share, float) or not 0 < share < 1:
            raise UserError(
                f"The manifest's split has the salt {rule.get('salt')!r} and the share {share!r}.",
                "The salt is a string, the share a number between 0 and 1.",
            )
