"""Writes the definition of a new stream, which works and is meant to be edited."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from pathlib import Path

from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT
from include.streams import definitions
from include.streams.definition import NAME_RULE, usable

FOLDER = ROOT / "include/streams"
TEMPLATE = Path(__file__).parent / "stream.txt"


def write(name: str, folder: Path = FOLDER) -> Path:
    """Writes the definition of a stream; returns its file.

    Raises:
        UserError: The name is invalid or already taken.
    """
    file = free(name, folder)
    template = TEMPLATE.read_text()
    imported = re.findall(r"\w+", " ".join(re.findall(r"^from .* import (.*)$", template, re.MULTILINE)))
    file.write_text(template.replace("{name}", name).replace("{event}", class_name(name, imported)))
    return file if not file.is_relative_to(ROOT) else file.relative_to(ROOT)


def free(name: str, folder: Path = FOLDER) -> Path:
    """The file for a new stream with this name.

    Raises:
        UserError: The name is invalid or already taken.
    """
    if not usable(name):
        raise UserError(f"{name!r} is not a valid name for a stream.", NAME_RULE, code=Code.INVALID_NAME)
    file = folder / f"{name}.py"
    # A package of this folder would hide the file.
    if file.exists() or (FOLDER / name).is_dir() or name in definitions.find(folder).valid:
        raise UserError(f"The name {name!r} is already taken.", "Choose another name.", code=Code.DEFINITION_EXISTS)
    return file


def class_name(name: str, taken: Collection[str]) -> str:
    """The name of the class of a stream's events.

    Args:
        taken: Names that the file of the definition imports.
    """
    event = "".join(word.capitalize() for word in name.split("_"))
    return f"{event}Event" if keyword.iskeyword(event) or event in taken else event
