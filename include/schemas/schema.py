"""A schema of a schema registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from include.schemas.framing import SchemaKey


class Format(StrEnum):
    """How the values of a topic are encoded: ``format`` of a stream."""

    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"
    JSON_SCHEMA = "json-schema"

    @property
    def kind(self) -> str:
        """What a registry calls schemas of this format."""
        return {Format.AVRO: "AVRO", Format.PROTOBUF: "PROTOBUF"}.get(self, "JSON")


class InvalidSchema(Exception):
    """A text that is not a schema, or not one that can be used."""


@dataclass(frozen=True)
class Schema:
    """A schema as the registry has it.

    Attributes:
        kind: ``AVRO``, ``PROTOBUF`` or ``JSON``.
        text: The schema itself.
        references: The text of each schema that this one refers to, directly or not, by the name of the reference; each
            comes after those that it refers to itself.
        subjects: The subjects that have it, with the version, such as ``orders-value version 3``; empty if unknown.
    """

    kind: str
    text: str
    references: Mapping[str, str] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()


def shown(key: SchemaKey, subjects: Sequence[str] = ()) -> str:
    """A schema's name for messages, such as ``schema id 7 (orders-value version 3)``."""
    name = f"schema GUID {key}" if isinstance(key, UUID) else f"schema id {key}"
    return f"{name} ({', '.join(subjects)})" if subjects else name
