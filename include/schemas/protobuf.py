"""Protobuf schemas: message types from the text of ``.proto`` files, without protoc.

A registry has the text. proto-schema-parser reads it, and this module makes the descriptor that the package protobuf
needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from include.schemas.schema import InvalidSchema, Schema

_WELL_KNOWN = "google/protobuf/"


class ProtobufFile:
    """The messages of a schema.

    Args:
        schema: The schema.

    Raises:
        InvalidSchema: The text is not a Protobuf schema.
    """

    def __init__(self, schema: Schema) -> None:
        self.messages = tuple(_file(schema).message_types_by_name.values())

    def message(self, indexes: tuple[int, ...]) -> Any:
        """The descriptor of a message.

        Args:
            indexes: The position of the message in its file, or of each message and the one inside it.

        Raises:
            InvalidSchema: There is no such message.
        """
        messages, found = self.messages, None
        for index in indexes:
            if not 0 <= index < len(messages):
                raise InvalidSchema(f"it has no message with the indexes {', '.join(map(str, indexes))}")
            found = messages[index]
            messages = tuple(each for each in found.nested_types if not each.GetOptions().map_entry)
        return found


def _file(schema: Schema) -> Any:
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    try:
        for name, text in (*schema.references.items(), ("the schema", schema.text)):
            file = _descriptor(name, text)
            _add_well_known(pool, file.dependency)
            pool.Add(file)
        return pool.FindFileByName("the schema")
    except InvalidSchema:
        raise
    except Exception as error:  # the parser and the pool raise errors of many kinds
        raise InvalidSchema(f"it is not a valid Protobuf schema: {type(error).__name__}: {error}") from error


def _add_well_known(pool: Any, names: Iterable[str]) -> None:
    from google.protobuf import descriptor_pb2

    for name in names:
        if name.startswith(_WELL_KNOWN):
            file = descriptor_pb2.FileDescriptorProto()
            module = name.removesuffix(".proto").replace("/", ".")
            import_module(f"{module}_pb2").DESCRIPTOR.CopyToProto(file)
            _add_well_known(pool, file.dependency)
            pool.Add(file)


def _descriptor(name: str, text: str) -> Any:
    """The descriptor of a file, from its text."""
    from google.protobuf import descriptor_pb2
    from proto_schema_parser import ast
    from proto_schema_parser.parser import Parser

    parsed = Parser().parse(text)
    file = descriptor_pb2.FileDescriptorProto(name=name, syntax=parsed.syntax or "proto2")
    if file.syntax not in ("proto2", "proto3"):
        raise InvalidSchema(f"its syntax is {file.syntax}, and not proto2 or proto3")
    for element in parsed.file_elements:
        if isinstance(element, ast.Package):
            file.package = element.name
        elif isinstance(element, ast.Import):
            file.dependency.append(element.name)
            if element.public:
                file.public_dependency.append(len(file.dependency) - 1)
        elif isinstance(element, ast.Message):
            _Message(file.syntax, file.message_type.add()).fill(element)
        elif isinstance(element, ast.Enum):
            _fill_enum(file.enum_type.add(), element)
    return file


class _Message:
    """Fills the descriptor of a message."""

    def __init__(self, syntax: str, proto: Any) -> None:
        self._is_proto3 = syntax == "proto3"
        self._syntax = syntax
        self._proto = proto

    def fill(self, message: Any) -> None:
        from proto_schema_parser import ast

        self._proto.name = message.name
        optional = []
        for element in message.elements:
            if isinstance(element, ast.Field):
                field = self._field(element)
                if self._is_proto3 and _is(element, "OPTIONAL"):
                    optional.append(field)
            elif isinstance(element, ast.MapField):
                self._map(element)
            elif isinstance(element, ast.OneOf):
                self._proto.oneof_decl.add(name=element.name)
                index = len(self._proto.oneof_decl) - 1
                for inner in element.elements:
                    if isinstance(inner, ast.Field):
                        self._field(inner).oneof_index = index
            elif isinstance(element, ast.Message):
                _Message(self._syntax, self._proto.nested_type.add()).fill(element)
            elif isinstance(element, ast.Enum):
                _fill_enum(self._proto.enum_type.add(), element)
            elif isinstance(element, ast.Group):
                raise InvalidSchema(f"it has a group, {element.name}, which is not supported")
        # The oneofs of optional fields come after all others.
        for field in optional:
            field.proto3_optional = True
            field.oneof_index = len(self._proto.oneof_decl)
            self._proto.oneof_decl.add(name=f"_{field.name}")

    def _field(self, element: Any) -> Any:
        proto = self._proto.field.add(name=element.name, number=int(element.number))
        proto.label = (
            proto.LABEL_REPEATED
            if _is(element, "REPEATED")
            else proto.LABEL_REQUIRED
            if _is(element, "REQUIRED")
            else proto.LABEL_OPTIONAL
        )
        _set_type(proto, element.type)
        for option in element.options or ():
            if option.name == "packed":
                proto.options.packed = option.value is True or option.value == "true"
            elif option.name == "json_name":
                proto.json_name = str(option.value).strip("\"'")
        return proto

    def _map(self, element: Any) -> None:
        words = element.name.split("_")
        entry = self._proto.nested_type.add(name="".join(word[:1].upper() + word[1:] for word in words) + "Entry")
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", element.key_type), ("value", element.value_type)), 1):
            field = entry.field.add(name=name, number=number)
            field.label = field.LABEL_OPTIONAL
            _set_type(field, kind)
        field = self._proto.field.add(name=element.name, number=int(element.number), type_name=entry.name)
        field.label, field.type = field.LABEL_REPEATED, field.TYPE_MESSAGE


def _set_type(proto: Any, name: str) -> None:
    scalar = getattr(proto, f"TYPE_{name.upper()}", None) if name.islower() and "." not in name else None
    if scalar is not None and name not in ("message", "enum", "group"):
        proto.type = scalar
    else:
        # Without a type, the pool finds out whether it is a message or an enum.
        proto.type_name = name


def _fill_enum(proto: Any, element: Any) -> None:
    from proto_schema_parser import ast

    proto.name = element.name
    for value in element.elements:
        if isinstance(value, ast.EnumValue):
            proto.value.add(name=value.name, number=int(value.number))
        elif isinstance(value, ast.Option) and value.name == "allow_alias":
            proto.options.allow_alias = value.value is True or value.value == "true"


def _is(element: Any, cardinality: str) -> bool:
    return element.cardinality is not None and element.cardinality.name == cardinality
