"""The framing of records: where they name their schema."""

from __future__ import annotations

from uuid import UUID

import pytest

from include.schemas import framing
from include.schemas.framing import HEADER, NotFramed

GUID = UUID("89791762-2336-4186-9674-299b90a802e2")


def test_a_value_names_its_schema_by_id() -> None:
    assert framing.schema_of(b"\0\0\0\1\2rest", None) == (258, 5, b"")
    assert framing.schema_of(framing.prefix(258), []) == (258, 5, b"")


def test_a_header_names_the_schema_by_guid_or_id_and_the_value_has_no_prefix() -> None:
    assert framing.schema_of(b"\0\0\0\0\1x", [("other", b""), (HEADER, b"\1" + GUID.bytes)]) == (GUID, 0, b"")
    assert framing.schema_of(b"x", [(HEADER, b"\0\0\0\0\7")]) == (7, 0, b"")
    assert framing.schema_of(b"x", [(HEADER, b"\1" + GUID.bytes + b"\2\4")]) == (GUID, 0, b"\2\4")


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\1", b'{"a": 1}', b"\1" + GUID.bytes])
def test_a_value_without_a_schema_is_an_error_that_shows_its_beginning(value: bytes) -> None:
    with pytest.raises(NotFramed, match=value[:5].hex(" ") or "nothing|empty"):
        framing.schema_of(value, None)


@pytest.mark.parametrize("header", [b"", None, b"\1short", b"\2" + GUID.bytes])
def test_a_header_without_a_schema_is_an_error(header: bytes | None) -> None:
    with pytest.raises(NotFramed, match=HEADER):
        framing.schema_of(b"\0\0\0\0\1", [(HEADER, header)])


@pytest.mark.parametrize(
    ("data", "indexes", "at"),
    [(b"\0rest", (0,), 1), (b"\2\2", (1,), 2), (b"\4\2\4x", (1, 2), 3), (b"\2\x80\2", (128,), 3)],
)
def test_message_indexes(data: bytes, indexes: tuple[int, ...], at: int) -> None:
    assert framing.message_indexes(data, 0) == (indexes, at)


@pytest.mark.parametrize("data", [b"", b"\4\2", b"\x80", b"\xff\xff\xff\xff\x0f", b"\1"])
def test_message_indexes_that_are_cut_off_are_an_error(data: bytes) -> None:
    with pytest.raises(NotFramed):
        framing.message_indexes(data, 0)
