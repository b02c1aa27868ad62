"""Rewrites times that ISO 8601 allows and RFC 3339 does not, such as ``2026-01-15T10:00Z``, where an event has times.

msgspec decodes only RFC 3339. Such times are rare, so this code is not optimized.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import inspect

_REFUSED = ("Invalid RFC3339 encoded datetime", "Invalid RFC3339 encoded time")
_ZONE = r"(?P<zone>[Zz]|(?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?)?"
_EXTENDED = r"(?P<hour>[0-9]{2})(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<part>[0-9]+))?)?)?" + _ZONE
_BASIC = _EXTENDED.replace("(?::(", "(?:(")
_TIMES = [re.compile(pattern) for pattern in (_EXTENDED, _BASIC)]
_DATETIMES = [
    re.compile(rf"(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]{_EXTENDED}"),
    re.compile(rf"(?P<date>[0-9]{{8}})[Tt]{_BASIC}"),
]


def _verbatim(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODE = json.JSONDecoder(parse_float=_verbatim, parse_int=_verbatim, parse_constant=_refuse).decode


def are_refused(error: BaseException) -> bool:
    """Whether msgspec's error is about a time."""
    return isinstance(error, msgspec.ValidationError) and str(error).startswith(_REFUSED)


def rewritten(value: bytes, event: inspect.Type) -> bytes | None:
    """A record with its times in RFC 3339; None if that changes nothing.

    Only values are changed that the event declares as times.
    """
    try:
        document = [_DECODE(value.decode())]
        return msgspec.json.encode(document[0]) if _rewrite(document, event) else None
    except ValueError:
        # msgspec cannot decode it either.
        return None


def rfc3339(text: str, *, dated: bool = True) -> str:
    """A time of ISO 8601 in the form of RFC 3339, with its zone if it has one; any other text unchanged.

    Args:
        dated: Whether the text has a date.
    """
    match = next(filter(None, (pattern.fullmatch(text) for pattern in (_DATETIMES if dated else _TIMES))), None)
    if match is None:
        return text
    parts = match.groupdict()
    day = ""
    if dated:
        digits = parts["date"].replace("-", "")
        day = f"{digits[:4]}-{digits[4:6]}-{digits[6:]}T"
    part = f".{parts['part']}" if parts["part"] else ""
    zone = (
        f"{parts['sign']}{parts['zone_hour']}:{parts['zone_minute'] or '00'}" if parts["sign"] else parts["zone"] or ""
    )
    return f"{day}{parts['hour']}:{parts['minute'] or '00'}:{parts['second'] or '00'}{part}{zone}"


def _rewrite(document: list[Any], event: inspect.Type) -> bool:
    """Rewrites the times of a document, the only item of a list, and returns whether that changed anything."""
    changed = False
    # Not recursive: a document could be nested too deeply.
    todo: list[tuple[Any, Any, inspect.Type]] = [(document, 0, event)]
    while todo:
        holder, at, declared = todo.pop()
        found = holder[at]
        if isinstance(declared, inspect.Metadata):
            todo.append((holder, at, declared.type))
        elif isinstance(declared, inspect.UnionType):
            todo += [(holder, at, each) for each in declared.types if _may_be(each, found)]
        elif isinstance(found, str):
            if isinstance(declared, inspect.DateTimeType | inspect.TimeType):
                holder[at] = rfc3339(found, dated=isinstance(declared, inspect.DateTimeType))
                changed |= holder[at] != found
        elif isinstance(declared, inspect.DictType) and isinstance(found, dict):
            if isinstance(declared.key_type, inspect.DateTimeType):
                renamed = {rfc3339(key): each for key, each in found.items()}
                changed |= list(renamed) != list(found)
                found = holder[at] = renamed
            todo += [(found, key, declared.value_type) for key in found]
        elif isinstance(found, dict):
            fields = getattr(declared, "fields", ())
            todo += [(found, field.encode_name, field.type) for field in fields if field.encode_name in found]
        elif isinstance(found, list):
            todo += [(found, index, each) for index, each in enumerate(_items(declared, len(found)))]
    return changed


def _may_be(declared: inspect.Type, found: Any) -> bool:
    """Whether a value can belong to one type of a union; of structs, the tag decides."""
    if not isinstance(declared, inspect.StructType) or declared.tag_field is None:
        return True
    if isinstance(found, list):
        tag = found[0] if found else None
    else:
        tag = found.get(declared.tag_field) if isinstance(found, dict) else None
    name = bytes(tag).decode() if isinstance(tag, msgspec.Raw) else tag
    return bool(name == str(declared.tag))


def _items(declared: inspect.Type, count: int) -> list[inspect.Type]:
    """The declared types of a list's first items."""
    if hasattr(declared, "item_type"):
        return [declared.item_type] * count
    if hasattr(declared, "item_types"):
        return list(declared.item_types[:count])
    types = [field.type for field in getattr(declared, "fields", ())]
    if isinstance(declared, inspect.StructType) and declared.tag_field is not None:
        types.insert(0, inspect.AnyType())
    return types[:count]
