"""Finds the field at which the bytes of a Protobuf message break, for the reason of a dead letter."""

from __future__ import annotations

from typing import Any

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_MAX_SHIFT = 63


def broken_field(message: Any, data: bytes) -> str:
    """The field that ends too early or has another wire type, as ``field 'name': ``; empty if the bytes do not show it.

    Args:
        message: The descriptor of the message.
    """
    at, number = 0, 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag is None:
            return _named(message, number, after=True)
        number, wire = tag >> 3, tag & 7
        size: int | None = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _VARINT:
            value, at = _varint(data, at)
            if value is None:
                return _named(message, number)
            size = 0
        elif wire == _SIZED:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            return _named(message, number)
        field = message.fields_by_number.get(number)
        if field is not None and wire == _SIZED and _is_broken(field, data[at : at + size]):
            return _named(message, number)
        at += size
    return ""


def _is_broken(field: Any, data: bytes) -> bool:
    if field.type == field.TYPE_STRING:
        try:
            data.decode()
        except UnicodeDecodeError:
            return True
    return field.message_type is not None and bool(broken_field(field.message_type, data))


def _named(message: Any, number: int, *, after: bool = False) -> str:
    field = message.fields_by_number.get(number)
    name = repr(field.name) if field is not None else f"number {number}"
    return f"after field {name}: " if after else f"field {name}: "


def _varint(data: bytes, at: int) -> tuple[int | None, int]:
    """A varint and where it ends; None if the data end before."""
    found = shift = 0
    while at < len(data) and shift <= _MAX_SHIFT:
        byte = data[at]
        found |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return found, at
    return None, at
