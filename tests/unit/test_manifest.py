"""The manifest: what it must say, and what it may not contradict."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from include.errors import UserError
from include.versions.manifest import Column, Manifest, Message, decode, encode, version_id

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


def test_it_survives_its_encoding() -> None:
    assert decode(encode(manifest())) == manifest()


def test_the_version_is_the_digest_of_the_list_whatever_its_order() -> None:
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
    with pytest.raises(UserError, match=r"no manifest: .*messages"):
        decode(msgspec.json.encode(plain))


def test_the_messages_of_a_split_come_in_batch_order() -> None:
    shuffled = manifest(messages=list(reversed(MESSAGES)))
    assert [message.batch for message in shuffled.of("train")] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": "0" * 64}, "not the SHA-256 of its messages"),
        ({"rows": {"train": 151, "test": 40}}, "says 151 train rows, its messages hold 150"),
        ({"messages": MESSAGES[:2], "rows": {"train": 150, "test": 0}}, "has no test rows"),
        ({"messages": [MESSAGES[1], MESSAGES[2]], "rows": {"train": 50, "test": 40}}, "train batches are not numbered"),
        ({"messages": [*MESSAGES, MESSAGES[0]], "rows": {"train": 250, "test": 40}}, "lists an offset twice"),
        ({"target": "refunded"}, "schema lacks refunded"),
        ({"features": ["amount", "returned"]}, "names its target 'returned' among the features"),
    ],
)
def test_one_that_contradicts_itself_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        decode(encode(manifest(**changes)))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "tombstone"),
        (b"", "no manifest"),
        (b"\xff\xfe", "no manifest"),
        (b"{}", "missing required field"),
        (msgspec.json.encode(msgspec.to_builtins(manifest()) | {"format": "other/1"}), "no manifest"),
        (msgspec.json.encode(msgspec.to_builtins(manifest()) | {"messages": []}), "no manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(value: bytes | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        decode(value)
