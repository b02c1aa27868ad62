"""How messages and definitions show values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

MAX_LISTED = 3
MAX_LENGTH = 40


def listed(values: Sequence[Any], most: int = MAX_LISTED) -> str:
    """The first values, each on one line and not too long, and the number of the others."""
    shown = [_shortened(str(value)) for value in values[:most]]
    return ", ".join(shown) + (f" and {len(values) - most} more" if len(values) > most else "")


def rows(count: int) -> str:
    """A number of rows, in words."""
    return "1 row" if count == 1 else f"{count} rows"


def shell(value: str) -> str:
    """A value as a shell reads it."""
    return shlex.quote(value)


def null_options(values: Iterable[str]) -> str:
    """The options that make these texts missing values."""
    return " ".join(f"--null {shell(value)}" for value in dict.fromkeys(value.strip() for value in values))


def text_option(column: str) -> str:
    """The option that keeps a column as text."""
    return f"--types {shell(f'{column}=text')}"


def quoted(value: object) -> str:
    """A text or a list of texts as Python source, in double quotes: every escape of JSON is also one of Python."""
    return json.dumps(value, ensure_ascii=False)


def _shortened(value: str) -> str:
    value = "".join(letter if letter.isprintable() else "?" for letter in value)
    return value if len(value) <= MAX_LENGTH else f"{value[: MAX_LENGTH - 1]}…"
