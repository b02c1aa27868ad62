"""The manifest: its format, and the contradictions that are refused."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from include.error_codes import Code
from include.versions.manifest import Column, Manifest, Message, decode, encode, version_id
from tests.errors import raises

MESSAGES = [
    Message(0, 7, "train", 0, 100, "a" * 64),
    Message(1, 3, "train", 1, 50, "b" * 64),
    Message(0, 8, "test", 0, 40, "c" * 64),
]


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "dataset": "orders",
        "version": version_id("orders", changes.get("messages", MESSAGES)),
        "publication": "p1",
        "topic": "orders",
        "kind": "classification",
        "record_id": "order",
        "target": "returned",
        "features": ["amount"],
        "columns": [Column("order", "int64"), Column("amount", "double"), Column("returned", "bool")],
        "split": {"kind": "hash"},
        "classes": [False, True],
        "rows": {"train": 150, "test": 40},
        "messages": MESSAGES,
    }
    return Manifest(**fields | changes)


def test_a_decoded_manifest_equals_the_encoded_one() -> None:
    assert decode(encode(manifest())) == manifest()


def test_the_version_does_not_depend_on_the_order_of_the_list() -> None:
    text = f"orders\n0 7 train 0 100 {'a' * 64}\n0 8 test 0 40 {'c' * 64}\n1 3 train 1 50 {'b' * 64}\n"
    assert version_id("orders", MESSAGES) == hashlib.sha256(text.encode()).hexdigest()
    assert version_id("orders", reversed(MESSAGES)) == version_id("orders", MESSAGES)
    assert version_id("returns", MESSAGES) != version_id("orders", MESSAGES)


def test_a_message_has_a_digest_of_either_kind() -> None:
    value = b"rows"
    of_sha256 = Message(0, 7, "train", 0, 100, hashlib.sha256(value).hexdigest())
    of_blake3 = Message(0, 7, "train", 0, 100, blake3=blake3(value).hexdigest())
    for message in (of_sha256, of_blake3):
        assert message.is_of(value)
        assert not message.is_of(b"other rows")
    line = f"orders\n0 7 train 0 100 blake3:{of_blake3.blake3}\n"
    assert version_id("orders", [of_blake3]) == hashlib.sha256(line.encode()).hexdigest()


@pytest.mark.parametrize("digests", [{}, {"sha256": "a" * 64, "blake3": "a" * 64}, {"blake3": "a" * 63}])
def test_a_message_without_one_digest_is_refused(digests: dict[str, str]) -> None:
    plain = msgspec.to_builtins(manifest())
    first = {name: value for name, value in plain["messages"][0].items() if name != "sha256"}
    plain["messages"][0] = first | digests
    with raises(Code.INVALID_MANIFEST, "messages"):
        decode(msgspec.json.encode(plain))


def test_the_messages_of_a_split_come_in_batch_order() -> None:
    shuffled = manifest(messages=list(reversed(MESSAGES)))
    assert [message.batch for message in shuffled.of("train")] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "0" * 64}, "SHA-256 of its messages"),
        ({"rows": {"train": 151, "test": 40}}, "151 train rows, but its messages have 150"),
        ({"messages": MESSAGES[:2], "rows": {"train": 150, "test": 0}}, "has no test rows"),
        ({"messages": [MESSAGES[1], MESSAGES[2]], "rows": {"train": 50, "test": 40}}, "train batches are not numbered"),
        ({"messages": [*MESSAGES, MESSAGES[0]], "rows": {"train": 250, "test": 40}}, "lists an offset twice"),
        ({"target": "refunded"}, "no column refunded"),
        ({"features": ["amount", "returned"]}, "target 'returned' is also among its features"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, Any], reason: str) -> None:
    with raises(Code.INVALID_MANIFEST, reason):
        decode(encode(manifest(**changes)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b"{}", "missing required field"),
        (msgspec.json.encode(msgspec.to_builtins(manifest()) | {"format": "other/1"}), "not a manifest"),
        (msgspec.json.encode(msgspec.to_builtins(manifest()) | {"messages": []}), "not a manifest"),
    ],
)
def test_other_records_are_refused(value: bytes | None, reason: str) -> None:
    with raises(Code.INVALID_MANIFEST, reason):
        decode(value)
