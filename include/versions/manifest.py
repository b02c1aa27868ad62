"""The manifest: the record on the control topic that seals a dataset version. It lists each of its messages.

docs/manifest.md describes the format for producers that share no code with Millrace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from blake3 import blake3
from msgspec import Meta, Struct

from include.error_codes import Code
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


class InvalidManifest(UserError):
    """A record of the control topic is not a manifest, or it contradicts itself."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy, code=Code.INVALID_MANIFEST)


class Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One Kafka message of a version: an Arrow IPC stream with one record batch.

    Its value has one digest of 256 bits, in hexadecimal. Millrace writes BLAKE3, which takes less than half the time of
    SHA-256; the standard library of most languages has SHA-256.

    Attributes:
        partition: Its partition.
        offset: Its offset.
        split: Whether its rows train or test.
        batch: Its number among the batches of its split, from 0.
        rows: Its number of rows.
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
            raise ValueError("a message needs exactly one digest, sha256 or blake3")

    @property
    def digest(self) -> str:
        """The digest as the version's id contains it: a BLAKE3 after ``blake3:``, a SHA-256 without a prefix."""
        return f"blake3:{self.blake3}" if self.sha256 is None else self.sha256

    def is_of(self, value: bytes) -> bool:
        """Whether the value has the digest that was sealed."""
        if self.blake3 is not None:
            return blake3(value).hexdigest() == self.blake3
        return hashlib.sha256(value).hexdigest() == self.sha256


class Column(Struct, frozen=True):
    """The name and the Arrow type of a column, such as ``double`` or ``timestamp[us]``."""

    name: str
    type: str


class Interval(Struct, frozen=True):
    """The data interval of a version, [start, end) in UTC; None for an open end."""

    start: datetime | None = None
    end: datetime | None = None


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sealed dataset version.

    Attributes:
        format: Always ``millrace.manifest/1``.
        dataset: The dataset's name.
        version: The version's id: SHA-256 of the list of messages, see ``version_id``.
        publication: The value of the header ``millrace-publication`` on its messages, and on no others.
        topic: The topic of the messages.
        kind: Whether the target is a class or a number.
        record_id: The column that identifies a record.
        event_time: The column with the time of a record, if there is one.
        target: The column to predict.
        features: The columns to learn from.
        columns: The schema of every batch.
        split: The rule that divided the rows. Readers check rules of three kinds, see ``split_check``.
        classes: The target's values in ascending order; empty for a regression.
        rows: The number of rows by split.
        messages: Every message of the version.
        content: A digest of the rows, the split and the roles of the columns, whenever and wherever published.
        source: The source of the rows.
        interval: The data interval.
        code: The version of the code that published it.
        asked_by: The person or schedule that requested it.
        parameters: The values of the form.
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
        """For each message, the number of its first row within its split."""
        starts = {}
        for split in SPLITS:
            rows = 0
            for message in self.of(split):
                starts[message] = rows
                rows += message.rows
        return starts

    @property
    def short(self) -> str:
        """The first twelve digits of the version, for messages."""
        return self.version[:12]


def width(type_: str) -> int:
    """The bytes of a value of an Arrow type, given as in a manifest; 0 if the type has no fixed width.

    A type that is missing here works as well; its columns are assembled more slowly.
    """
    return _WIDTHS.get(type_.partition("[")[0], 0)


def version_id(topic: str, messages: Iterable[Message]) -> str:
    """SHA-256, in hexadecimal, of the topic's name and one line for each message, ordered by partition and offset.

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
    """Decodes a manifest and checks that it is consistent.

    Raises:
        InvalidManifest: The record is not a manifest, or it contradicts itself.
    """
    if value is None:
        raise InvalidManifest("The record is a tombstone, not a manifest.")
    try:
        manifest = msgspec.json.decode(value, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest(
            f"The record is not a manifest: {error}.", "docs/manifest.md describes the format."
        ) from error
    _require(manifest)
    return manifest


def _require(manifest: Manifest) -> None:
    if manifest.version != version_id(manifest.topic, manifest.messages):
        raise InvalidManifest("The manifest's version is not the SHA-256 of its messages.")
    if len({(m.partition, m.offset) for m in manifest.messages}) < len(manifest.messages):
        raise InvalidManifest("The manifest lists an offset twice.")
    for split in ("train", "test"):
        listed = manifest.of(split)
        rows = sum(m.rows for m in listed)
        if rows != manifest.rows.get(split, 0):
            raise InvalidManifest(
                f"The manifest has {manifest.rows.get(split, 0)} {split} rows, but its messages have {rows}."
            )
        if not rows:
            raise InvalidManifest(f"The manifest has no {split} rows.", "Publish rows of both splits.")
        if [m.batch for m in listed] != list(range(len(listed))):
            raise InvalidManifest(f"The manifest's {split} batches are not numbered 0 to {len(listed) - 1}.")
    names = [column.name for column in manifest.columns]
    needed = [manifest.record_id, manifest.target, *manifest.features]
    needed += [manifest.event_time] if manifest.event_time is not None else []
    if missing := set(needed) - set(names):
        raise InvalidManifest(f"The manifest's schema has no column {', '.join(sorted(missing))}.")
    for what, columns in (("schema", names), ("list of features", manifest.features)):
        if len(set(columns)) < len(columns):
            raise InvalidManifest(f"The manifest's {what} names a column twice.")
    if manifest.target == manifest.record_id:
        raise InvalidManifest(f"The manifest's target {manifest.target!r} is also its record_id.")
    if manifest.target in manifest.features:
        raise InvalidManifest(f"The manifest's target {manifest.target!r} is also among its features.")
    _require_split(manifest, names)
    for moment in (manifest.interval.start, manifest.interval.end):
        try:
            _ = moment and moment.tzinfo and moment.astimezone(UTC)
        except OverflowError:
            raise InvalidManifest(
                f"The manifest's interval has the bound {moment}, which is not a time in UTC."
            ) from None


def _require_split(manifest: Manifest, columns: list[str]) -> None:
    """Refuses a rule of a kind that readers check, if it is incomplete."""
    from include.datasets.hashing import RULES

    rule = manifest.split
    if rule.get("kind") not in ("time", "hash", "group") or "column" not in rule:
        return
    if not isinstance(rule.get("column"), str) or rule["column"] not in columns:
        raise InvalidManifest(
            f"The manifest's schema has no column {rule.get('column')!r}, but its split, {rule['kind']!r}, needs it."
        )
    if rule["kind"] != "time" and rule.get("hash") in RULES:
        share = rule.get("test")
        if not isinstance(rule.get("salt"), str) or not isinstance(share, float) or not 0 < share < 1:
            raise InvalidManifest(
                f"The manifest's split has the salt {rule.get('salt')!r} and the share {share!r}.",
                "Use a string as the salt, and a number between 0 and 1 as the share.",
            )
