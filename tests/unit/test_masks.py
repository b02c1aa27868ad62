"""Masks: what is stored of a field instead of its value, and reasons that quote no value."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.landing import copy, decoders
from include.landing.decoder import Others
from include.landing.masked import Masks
from include.landing.tombstones import KeyDecoder
from include.streams.definition import (
    ConnectDecimal,
    Header,
    Instant,
    JsonText,
    Key,
    KeyedHash,
    LastCharacters,
    Null,
    Stream,
    Value,
)
from tests.errors import raises

TEN = datetime(2026, 1, 15, 10, tzinfo=UTC)
SECRET = "s3cret"
EMAIL = "ada@example.org"


class Kind(Enum):
    A = "a"


class Customer(msgspec.Struct):
    email: str
    phones: list[str] = []
    notes: dict[str, str] = {}


class Order(msgspec.Struct):
    ts: Instant
    email: str
    card: str | None = None
    ssn: str | None = None
    age: int | None = None
    customer: Customer | None = None
    friends: list[Customer] = []
    anything: Any = None
    raw: msgspec.Raw = msgspec.Raw(b"{}")
    kind: Kind = Kind.A
    level: Literal["x"] = "x"
    user: Annotated[str | None, Key] = None
    trace: Annotated[str | None, Header("trace")] = None
    price: Annotated[str, ConnectDecimal(2)] | None = None
    document: JsonText | None = None
    cards: dict[int, str | None] = {}
    levels: dict[Literal["low", "high"], str] = {}


MASK = {
    "email": KeyedHash(),
    "card": LastCharacters(4),
    "ssn": Null,
    "age": Null,
    "customer.email": KeyedHash(),
    "customer.phones": LastCharacters(2),
    "customer.notes.*": Null,
    "friends.email": LastCharacters(3),
    "anything.a.b": KeyedHash(),
    "user": KeyedHash(),
    "trace": LastCharacters(1),
}
ORDERS = Stream(name="orders", event=Order, event_time="ts", mask=MASK)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_MASK", json.dumps({"conn_type": "generic", "password": SECRET}))


def hashed(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


def decoded(stream: Stream, *values: Any, key: bytes = b"ada", header: bytes = b"trace-7") -> Any:
    texts = [value if isinstance(value, bytes) else msgspec.json.encode({"ts": TEN} | value) for value in values]
    count = len(texts)
    return decoders.of(stream).events(texts, [[("trace", header)]] * count, Others([key] * count, [0] * count))


def test_fields_are_masked_wherever_they_are() -> None:
    order = {
        "email": EMAIL,
        "card": "4111111111111111",
        "ssn": "078-05-1120",
        "age": 30,
        "customer": {"email": EMAIL, "phones": ["555-0100", "12"], "notes": {"x": "secret"}},
        "friends": [{"email": "bob@x"}, {"email": ""}],
        "anything": {"a": {"b": EMAIL}, "c": 1},
    }
    (found, other), bad = decoded(ORDERS, order, {"email": EMAIL, "anything": [{"a": [{"b": 17}]}]})
    assert bad == {}
    assert (found.email, found.card, found.ssn, found.age) == (hashed(EMAIL), "1111", None, None)
    assert found.customer == Customer(hashed(EMAIL), ["00", "2"], {"x": None})  # type: ignore[dict-item]
    assert [each.email for each in found.friends] == ["@x", ""]
    assert found.anything == {"a": {"b": hashed(EMAIL)}, "c": 1}
    assert (found.user, found.trace) == (hashed("ada"), "7")
    assert (other.email, other.card, other.customer) == (hashed(EMAIL), None, None)
    assert other.anything == [{"a": [{"b": hashed("17")}]}]


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("1", ""), ("12", "2"), ("1234", "34"), ("123456789", "6789")])
def test_never_more_than_half_of_a_text_is_shown(text: str, shown: str) -> None:
    (found,), _ = decoded(ORDERS, {"email": EMAIL, "card": text})
    assert found.card == shown


class Careless(Order):
    """Its code quotes values."""

    def __post_init__(self) -> None:
        if self.card == "0":
            raise ValueError(f"a bad card of {self.email}")
        if self.card == "1":
            raise KeyError(self.email)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"email": 1}, "ValidationError: Expected `str`, got `int` - at `$.email`"),
        ({}, "ValidationError: Object missing required field `email`"),
        ({"email": EMAIL, "age": "x"}, "ValidationError: Expected `int | null`, got `str` - at `$.age`"),
        ({"email": EMAIL, "ts": EMAIL}, "ValidationError: Invalid RFC3339 encoded datetime - at `$.ts`"),
        (EMAIL.encode(), "DecodeError: JSON is malformed: invalid character (byte 0)"),
        ({"email": EMAIL, "kind": EMAIL}, "ValidationError: "),
        ({"email": EMAIL, "level": EMAIL}, "ValidationError: "),
        ({"email": EMAIL, "card": "0"}, "ValueError: "),
        ({"email": EMAIL, "card": "1"}, "KeyError: "),
    ],
)
def test_reasons_quote_no_value(value: Any, reason: str) -> None:
    stream = Stream(name="orders", event=Careless, event_time="ts", mask=MASK)
    _, bad = decoded(stream, value)
    assert bad[0].startswith(reason)
    assert EMAIL not in bad[0]
    if reason.endswith(": "):
        assert bad[0] == f"{reason}the text is not stored, because the stream has masked fields"


@pytest.mark.parametrize(
    "reason",
    [
        "the value names no schema: it begins with 61 64 61 40 65",
        "email: ada@example.org is not text",
        "Kafka key: user, from the Kafka key: ValueError: ada@example.org: x",
        "schema id 7 (orders-value version 2): Unreadable: ada@example.org",
        "ValueError: Expected `int`, got `str` - at `$.email` ada@example.org",
    ],
)
def test_unknown_reasons_are_not_stored(reason: str) -> None:
    shown = Masks(ORDERS).safe(reason)
    assert EMAIL not in shown
    assert "61 64" not in shown
    assert shown.endswith("the text is not stored, because the stream has masked fields")


def test_the_keys_of_tombstones_are_masked_as_those_of_events() -> None:
    class Account(msgspec.Struct):
        id: str
        ts: Instant

    stream = Stream(
        name="a", event=Account, event_time="ts", key="id", current=True, deletes="tombstone", mask={"id": KeyedHash()}
    )
    columns = [column for column in copy.columns_of_stream(stream) if column.name == "id"]
    found, _ = KeyDecoder(stream, columns).keys([EMAIL.encode(), b'"x"'])
    assert [key.id for key in found] == [hashed(EMAIL), hashed("x")]


def test_the_secret_must_be_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(Code.CONNECTION_UNDEFINED):
        decoders.of(Stream(name="orders", event=Order, event_time="ts", mask={"email": KeyedHash("other")}))
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", '{"conn_type": "generic"}')
    with raises(Code.CONNECTION_INVALID):
        decoders.of(Stream(name="orders", event=Order, event_time="ts", mask={"email": KeyedHash("other")}))


@pytest.mark.parametrize(
    "mask",
    [
        ["email"],
        {"mail": Null},
        {"email": Null},
        {"email": "hash"},
        {"email": LastCharacters(0)},
        {"email.": KeyedHash()},
        {"email": KeyedHash("")},
        {"email.x": KeyedHash()},
        {"customer.mail": KeyedHash()},
        {"customer": KeyedHash()},
        {"age": KeyedHash()},
        {"kind": LastCharacters(1)},
        {"level": KeyedHash()},
        {"raw": KeyedHash()},
        {"raw.x": KeyedHash()},
        {"ts": Null},
        {"price": KeyedHash()},
        {"price": LastCharacters(4)},
        {"document": KeyedHash()},
        {"cards.5": Null},
        {"levels.medium": LastCharacters(1)},
    ],
)
def test_masks_that_are_not_possible(mask: Any) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Stream(name="orders", event=Order, event_time="ts", mask=mask)
    assert caught.value.field == "mask"
    assert caught.value.remedy


def test_the_values_of_a_dict_are_masked_whatever_its_keys_are() -> None:
    mask = {"cards.*": Null, "levels.low": LastCharacters(1), "price": Null, "document": Null}
    stream = Stream(name="orders", event=Order, event_time="ts", mask=mask)
    value = {
        "email": EMAIL,
        "cards": {"5": "4111"},
        "levels": {"low": "1234", "high": "x"},
        "price": "AQ==",
        "document": "{}",
    }
    [event], bad = decoded(stream, value)
    assert not bad
    assert event.cards == {5: None}
    assert event.levels == {"low": "4", "high": "x"}
    assert (event.price, event.document) == (None, None)


class Account(msgspec.Struct):
    ts: Instant
    card: str
    branch: str = ""
    state: str | None = None
    closed: bool | None = None


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        ({"card": LastCharacters(4)}, {"key": "card"}),
        ({"branch": LastCharacters(4)}, {"key": ("card", "branch")}),
        ({"state": KeyedHash()}, {"key": "card", "deletes": ("state", "closed")}),
        ({"closed": Null}, {"key": "card", "deletes": "closed"}),
    ],
)
def test_masks_that_the_current_state_does_not_allow(mask: Any, options: Any) -> None:
    def stream(mask: Any, **options: Any) -> Stream:
        return Stream(name="accounts", event=Account, event_time="ts", mask=mask, **options)

    with pytest.raises(InvalidDefinition) as caught:
        stream(mask, **options, current=True)
    assert caught.value.field == "mask"
    assert caught.value.remedy
    # Without the current state, all rows stay; and a hash of the key is a key.
    stream(mask, key="card")
    stream({"card": KeyedHash()}, **options, current=True)


class Document(msgspec.Struct, kw_only=True):
    ts: Instant
    email: str
    user: Annotated[str | None, Key] = None
    document: Annotated[Any, Value]


def test_a_column_with_the_whole_value_needs_a_mask_if_a_field_of_the_value_has_one() -> None:
    def stream(*paths: str) -> Stream:
        return Stream(name="documents", event=Document, event_time="ts", mask=dict.fromkeys(paths, KeyedHash()))

    with pytest.raises(InvalidDefinition) as caught:
        stream("email")
    assert "'document' is the whole value" in str(caught.value)
    [event], bad = decoded(stream("email", "document.email"), {"email": EMAIL})
    assert not bad
    assert event.email == event.document["email"] == hashed(EMAIL)
    # A mask of another part of the record says nothing about the value.
    stream("user")
