"""The Python source of the struct of an event, with a comment for what the sample of the topic shows."""

from __future__ import annotations

import keyword
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from include.streams.definition import MAX_COLUMN_BYTES, RESERVED_PREFIX, SYSTEM_COLUMNS
from include.streams.profiling.types import (
    ANY,
    Choice,
    DictOf,
    Epoch,
    Field,
    ListOf,
    OfKey,
    OfSource,
    Plain,
    Struct,
    Type,
    Unscaled,
    structs_of,
)

WIDTH = 120
_DEFINITION = "include.streams.definition"
# The modules of the names that types need. Builtins are imported only under another name.
_MODULES = {
    "Any": "typing",
    "Literal": "typing",
    "UUID": "uuid",
    "Decimal": "decimal",
    **dict.fromkeys(("date", "time", "timedelta"), "datetime"),
    "Instant": _DEFINITION,
    **dict.fromkeys(("EpochSeconds", "EpochMillis", "EpochMicros", "EpochNanos"), _DEFINITION),
    "Annotated": "typing",
    "Source": _DEFINITION,
    "Key": _DEFINITION,
    **dict.fromkeys(("ConnectDate", "ConnectDecimal", "ConnectTime", "ConnectTimestamp", "JsonText"), _DEFINITION),
    **dict.fromkeys(("MicroTime", "MicroTimestamp", "NanoTime", "NanoTimestamp", "VariableDecimal"), _DEFINITION),
    **dict.fromkeys(("str", "int", "float", "bool", "bytes", "list", "dict"), "builtins"),
}
_UNDECODABLE = re.compile(r'["\\\x00-\x1f]')
IMPORTED = frozenset({*_MODULES, "Stream"})
"""Names that the file of a definition may import, which its classes cannot have."""
# Room for a number behind a name that was shortened.
_MAX_CLEANED_BYTES = MAX_COLUMN_BYTES - 4


@dataclass
class EventSource:
    """The source of an event's structs.

    Attributes:
        classes: The structs, each before those that contain it; the last is the event.
        names: The names of the event's fields in Python, by their names in the JSON.
        imports: The names to import, by module: ``date`` or ``date as date_type``.
    """

    classes: list[str]
    names: dict[str, str]
    imports: dict[str, set[str]] = field(default_factory=dict)


def event_source(event: str, fields: Sequence[Field], description: str) -> EventSource:
    """Writes the structs of an event.

    Args:
        event: The name of the event's class.
        description: The docstring of the event's class.
    """
    return _Writer(event, fields).write(description)


def python_names(names: Iterable[str]) -> dict[str, str]:
    """A name for each field that Python, msgspec and PostgreSQL accept: the field's own, if it is possible."""
    names = list(names)
    found = {name: name for name in names if is_possible(name)}
    taken = {name.lower() for name in found}
    for name in names:
        if name not in found:
            cleaned = unique(_cleaned(name), taken)
            taken.add(cleaned.lower())
            found[name] = cleaned
    return found


def is_possible(name: str) -> bool:
    """Whether a field of a struct and a column can have this name."""
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        # Python reads such identifiers as if they were written with other letters.
        and unicodedata.normalize("NFKC", name) == name
        # Inside of a class, Python renames them.
        and not name.startswith("__")
        and not name.startswith(RESERVED_PREFIX)
        and name not in SYSTEM_COLUMNS
        and name != "msgspec"
        and len(name.encode()) <= MAX_COLUMN_BYTES
    )


def unique(name: str, taken: Iterable[str]) -> str:
    """The name, with a number if it is taken in upper or lower case."""
    lower = {each.lower() for each in taken}
    number = 2
    found = name
    while found.lower() in lower:
        found, number = f"{name}_{number}", number + 1
    return found


def commented(code: str, comment: str, indent: str = "    ") -> list[str]:
    """A line of code with a comment behind it, or above it if the line would be too long."""
    if not comment:
        return [f"{indent}{code}"]
    line = f"{indent}{code}  # {comment}"
    if len(line) <= WIDTH and "\n" not in code:
        return [line]
    return [*comment_lines(comment, indent), f"{indent}{code}"]


def comment_lines(comment: str, indent: str = "    ") -> list[str]:
    """A comment on lines of its own."""
    prefix = f"{indent}# "
    return textwrap.wrap(
        comment, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )


def literal(text: str) -> str:
    """A text as Python source, in double quotes."""
    escaped = "".join(_escaped(letter) for letter in text)
    return f'"{escaped}"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cleaned(name: str) -> str:
    cleaned = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_") or "field"
    if cleaned[0].isdigit():
        cleaned = f"field_{cleaned}"
    if cleaned.startswith(RESERVED_PREFIX):
        cleaned = f"event_{cleaned}"
    cleaned = cleaned.encode()[:_MAX_CLEANED_BYTES].decode(errors="ignore")
    return cleaned if is_possible(cleaned) else f"{cleaned}_"


def _all_fields(fields: Sequence[Field]) -> Iterator[Field]:
    for each in fields:
        yield each
        for struct in structs_of(each.type):
            yield from _all_fields(struct.fields)


class _Writer:
    def __init__(self, event: str, fields: Sequence[Field]) -> None:
        self._event = event
        self._fields = fields
        names = {name for each in _all_fields(fields) for name in python_names([each.name]).values()}
        # A name inside of a class would hide the type of the same name.
        self._hidden = names
        self._classes = {event, *names, *IMPORTED, "RECORD_TIMESTAMP", "msgspec"}
        self._source = EventSource([], python_names(each.name for each in fields))

    def write(self, description: str) -> EventSource:
        self._class(self._event, self._fields, description, "kw_only=True")
        return self._source

    def _class(self, name: str, fields: Sequence[Field], description: str, options: str) -> None:
        names = python_names(each.name for each in fields)
        lines = [line for each in fields for line in self._field(each, names[each.name], name)]
        if all(_UNDECODABLE.search(each.name) for each in fields):
            lines.append("    pass")
        body = "\n".join(lines)
        self._source.classes.append(f'class {name}(msgspec.Struct, {options}):\n    """{description}"""\n\n{body}')

    def _field(self, each: Field, name: str, owner: str) -> list[str]:
        if _UNDECODABLE.search(each.name):
            return comment_lines(
                f"The field {literal(each.name)} is left out: msgspec decodes no names with quotes, backslashes or "
                "control characters."
            )
        declared = self._type(each.type, f"{owner}{_camel(name)}", f"The object {name}.")
        arguments = []
        if isinstance(each.type, OfKey):
            declared = self._of_key(each.type, each.nullable)
        if each.nullable:
            arguments.append("default=None")
        if each.nullable and not isinstance(each.type, OfKey):
            declared = declared if each.type == ANY else f"{declared} | None"
        if name != each.name:
            arguments.append(f"name={literal(each.name)}")
        default = " = None" if arguments == ["default=None"] else f" = msgspec.field({', '.join(arguments)})"
        code = f"{name}: {declared}{default if arguments else ''}"
        if isinstance(each.type, Choice) and len(code) + 4 > WIDTH:
            inside = "".join(f"        {literal(value)},\n" for value in each.type.values)
            code = code.replace(f"[{_listed(each.type)}]", f"[\n{inside}    ]")
        return commented(code, _comment(each))

    def _type(self, declared: Type, struct: str, description: str) -> str:
        match declared:
            case Plain():
                return " | ".join(map(self._name, declared.name.split(" | ")))
            case Epoch():
                return self._name(declared.unit.declared)
            case Unscaled():
                return (
                    f"{self._name('Annotated')}[{self._name('str')}, {self._name('ConnectDecimal')}({declared.scale})]"
                )
            case OfSource():
                inner, source = self._name(declared.type.name), self._name("Source")
                return f"{self._name('Annotated')}[{inner}, {source}({literal(declared.name)})]"
            case OfKey():
                return self._of_key(declared, False)
            case Choice():
                return f"{self._name('Literal')}[{_listed(declared)}]"
            case ListOf():
                item = self._type(declared.item, struct, description.replace("The object", "An item of", 1))
                return f"{self._name('list')}[{item}{self._null(declared.item, declared.has_nulls)}]"
            case DictOf():
                value = self._type(declared.value, struct, description)
                null = self._null(declared.value, declared.has_nulls)
                return f"{self._name('dict')}[{self._name('str')}, {value}{null}]"
            case Struct():
                name = unique(struct, self._classes)
                self._classes.add(name)
                # A field that is missing in the JSON stays missing in the column.
                self._class(name, declared.fields, description, "kw_only=True, omit_defaults=True")
                return name
        raise AssertionError(declared)

    def _of_key(self, declared: OfKey, is_nullable: bool) -> str:
        inner = f"{self._name(declared.type.name)}{self._null(declared.type, is_nullable)}"
        path = f"({literal(declared.path)})" if declared.path else ""
        return f"{self._name('Annotated')}[{inner}, {self._name('Key')}{path}]"

    def _null(self, declared: Type, has_nulls: bool) -> str:
        return " | None" if has_nulls and declared != ANY else ""

    def _name(self, name: str) -> str:
        """The name of a type, imported; under another name if a field has it."""
        module, known = _MODULES[name], name
        if name in self._hidden:
            known = unique(f"{name.lower()}_type", self._classes)
        if module != "builtins" or known != name:
            self._source.imports.setdefault(module, set()).add(name if known == name else f"{name} as {known}")
        return known


def _listed(choice: Choice) -> str:
    return ", ".join(map(literal, choice.values))


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _comment(each: Field) -> str:
    parts = []
    if each.present < each.objects:
        parts.append(f"in {each.present:,} of {each.objects:,}" + (f", null in {each.nulls:,}" if each.nulls else ""))
    elif each.nulls:
        parts.append(f"null in {each.nulls:,} of {each.objects:,}")
    return "; ".join([*parts, *each.notes])
