"""Masks: what is stored of a field instead of its value."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec import inspect

from include.definitions import InvalidDefinition
from include.streams.field import Field
from include.streams.keys import Deletion
from include.streams.parts import PartField, Path, ValuePart

SECRET = "millrace_mask"
"""The Airflow connection whose password is the secret of hashes, if a definition names no other."""

EVERY = "*"
"""In a path: every name of an object, or every key of a dict."""

_SEPARATOR = "."


class Mask:
    """What is stored instead of a value."""


@dataclass(frozen=True)
class KeyedHash(Mask):
    """The HMAC-SHA256 of a text with a secret, as 64 hexadecimal digits. Equal texts have equal hashes.

    Args:
        connection: The Airflow connection whose password is the secret.
    """

    connection: str = SECRET


@dataclass(frozen=True)
class LastCharacters(Mask):
    """The last characters of a text, but never more than half of it.

    Args:
        count: How many.
    """

    count: int


@dataclass(frozen=True)
class NullMask(Mask):
    """Nothing."""


Null = NullMask()
"""Stores null."""

Masking = Callable[[Any], Any]
"""Makes of a value what is stored instead of it."""


class Masked(Protocol):
    """What a stream's definition says about masks."""

    @property
    def mask(self) -> Mapping[str, Mask]:
        """The masks by the paths of their fields."""

    @property
    def event(self) -> type[msgspec.Struct]:
        """The struct of events."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of events."""

    @property
    def parts(self) -> tuple[PartField, ...]:
        """The fields that come from other places than a field of the value."""

    @property
    def event_time(self) -> str:
        """The field of the event time."""

    @property
    def order_by(self) -> str | None:
        """The field that orders events."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields of the key."""

    @property
    def current(self) -> bool:
        """Whether to keep the current state."""

    @property
    def deletion(self) -> Deletion | None:
        """The field that deletes a key."""


def masking(mask: Mask, secret: Callable[[str], bytes]) -> Masking:
    """The function that applies a mask.

    Args:
        secret: Returns the secret of a connection.
    """
    if isinstance(mask, NullMask):
        return nothing
    if isinstance(mask, LastCharacters):
        count = mask.count
        return lambda value: _last(value, count)
    assert isinstance(mask, KeyedHash)
    key = secret(mask.connection)
    return lambda value: _hash(key, value)


def nothing(value: Any) -> None:
    """What ``Null`` stores."""


def check_masks(stream: Masked) -> None:
    """Checks ``mask`` of a stream.

    Raises:
        InvalidDefinition: A path leads to no field, a mask does not fit its field, or a column has the whole value and
            no mask.
    """
    if not isinstance(stream.mask, Mapping):
        raise InvalidDefinition(
            "mask", f"{stream.mask!r} is not a dict of fields and masks.", 'Write mask={"email": KeyedHash()}.'
        )
    fields = {field.name: field for field in stream.fields}
    for path, mask in stream.mask.items():
        if not isinstance(path, str) or not all(path.split(_SEPARATOR)):
            raise InvalidDefinition("mask", f"{path!r} is not a path.", 'Write "email" or "customer.email".')
        _check_mask(path, mask)
        first, *rest = path.split(_SEPARATOR)
        if first not in fields:
            raise InvalidDefinition(
                "mask", f"the event has no field {first!r}.", f"Name one of {', '.join(fields)}, or a path inside one."
            )
        _check_role(stream, first, mask)
        if not rest and isinstance(mask, NullMask) and not fields[first].nullable:
            raise InvalidDefinition("mask", f"the field {first!r} cannot be null.", f"Declare it as {first}: … | None.")
        # The mask would be applied before the text of a Connect type is read.
        if not isinstance(mask, NullMask) and (
            fields[first].encoding is not None or (not rest and fields[first].is_enum)
        ):
            raise _not_text(path)
        _check_path(path, mask, stream.event)
    _check_whole_values(stream)


def _check_role(stream: Masked, name: str, mask: Mask) -> None:
    """Raises InvalidDefinition if the rows or the current state need what the mask hides."""
    if name in (stream.event_time, stream.order_by):
        raise InvalidDefinition(
            "mask", f"the field {name!r} orders or partitions the rows.", "Name another field for this."
        )
    if stream.deletion is not None and name == stream.deletion.field:
        raise InvalidDefinition(
            "mask", f"the field {name!r} says which events delete their key.", "Omit its mask, or omit deletes."
        )
    if stream.current and name in stream.keys and not isinstance(mask, KeyedHash):
        raise InvalidDefinition(
            "mask",
            f"the field {name!r} is part of the key, and {mask!r} would make different keys equal, so that they would "
            "replace each other in the current state.",
            "Use KeyedHash(), or omit current.",
        )


def _check_whole_values(stream: Masked) -> None:
    """Raises InvalidDefinition if the whole value, which also has the masked fields, is stored without a mask."""
    parts = {field.name: field.part for field in stream.parts}
    masked = {steps_of(path)[0] for path in stream.mask}
    of_value = [name for name in masked if isinstance(parts.get(name), Path | ValuePart | None)]
    for name, part in parts.items():
        if of_value and isinstance(part, ValuePart) and name not in masked:
            raise InvalidDefinition(
                "mask",
                f"the field {name!r} is the whole value, which also has what is masked elsewhere.",
                f'Declare {name!r} as Any, and mask it, too, such as "{name}.email".',
            )


def steps_of(path: str) -> list[str]:
    """The names of a path."""
    return path.split(_SEPARATOR)


def _check_mask(path: str, mask: object) -> None:
    if not isinstance(mask, KeyedHash | LastCharacters | NullMask):
        raise InvalidDefinition(
            "mask", f"{mask!r} is not a mask of {path!r}.", "Write KeyedHash(), LastCharacters(4) or Null."
        )
    if isinstance(mask, LastCharacters) and (type(mask.count) is not int or not 1 <= mask.count <= 100):
        raise InvalidDefinition("mask", f"{mask!r} of {path!r} has no number of characters.", "Write 1 to 100.")
    if isinstance(mask, KeyedHash) and (not isinstance(mask.connection, str) or not mask.connection):
        raise InvalidDefinition(
            "mask", f"{mask.connection!r} is not the name of a connection.", f'Write KeyedHash("{SECRET}").'
        )


def _check_path(path: str, mask: Mask, event: type[msgspec.Struct]) -> None:
    found = [inspect.type_info(event)]
    for step in steps_of(path):
        found = [inner for each in found for outer in alternatives(each) for inner in inside(outer, step)]
        if not found:
            raise InvalidDefinition(
                "mask",
                f"the path {path!r} leads to no field: {step!r} is unknown.",
                "Correct the path; * stands for every name of an object, and for every key that is not a text.",
            )
    kinds = [kind for each in found for kind in alternatives(each)]
    if any(isinstance(kind, inspect.RawType) for kind in kinds) and not isinstance(mask, NullMask):
        raise InvalidDefinition("mask", f"{path!r} is msgspec.Raw, which is not decoded.", "Declare it as Any.")
    if not isinstance(mask, NullMask):
        texts = (inspect.StrType, inspect.AnyType, inspect.NoneType)
        if not all(isinstance(kind, texts) for kind in kinds):
            raise _not_text(path)


def alternatives(declared: inspect.Type) -> list[inspect.Type]:
    """The types that a type allows, without annotations; of a list those of its items."""
    if isinstance(declared, inspect.Metadata):
        return alternatives(declared.type)
    if isinstance(declared, inspect.UnionType):
        return [inner for each in declared.types for inner in alternatives(each)]
    if hasattr(declared, "item_type"):
        return alternatives(declared.item_type)
    return [declared]


def inside(declared: inspect.Type, step: str) -> list[inspect.Type]:
    """The types that one step of a path leads to."""
    if isinstance(declared, inspect.StructType):
        return [field.type for field in declared.fields if step in (field.name, EVERY)]
    if isinstance(declared, inspect.DictType):
        may_have = step == EVERY or any(_can_be(key, step) for key in alternatives(declared.key_type))
        return [declared.value_type] if may_have else []
    return [declared] if isinstance(declared, inspect.AnyType) else []


def _can_be(key: inspect.Type, step: str) -> bool:
    """Whether a key of a dict can be a step, which is a text."""
    if isinstance(key, inspect.LiteralType):
        return step in key.values
    return isinstance(key, inspect.StrType | inspect.AnyType)


def _not_text(path: str) -> InvalidDefinition:
    return InvalidDefinition(
        "mask", f"the field {path!r} is not a text, and only Null masks others.", "Declare it as str, or use Null."
    )


def _text(value: Any) -> str:
    """A value as text: of a field without a type, JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()


def _last(value: Any, count: int) -> str | None:
    if value is None:
        return None
    text = _text(value)
    return text[len(text) - min(count, len(text) // 2) :]


def _hash(key: bytes, value: Any) -> str | None:
    return None if value is None else hmac.digest(key, _text(value).encode(), "sha256").hex()
