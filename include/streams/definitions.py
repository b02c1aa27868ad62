"""The streams of this folder: every file in it that is not part of the machinery defines one."""

from __future__ import annotations

from pathlib import Path

from include import definitions
from include.definitions import Found
from include.streams.definition import Stream

MACHINERY = frozenset({"definition", "definitions", "field", "produce"})


def find(folder: Path | None = None) -> Found[Stream]:
    """Every stream by its name, and every broken file with its error."""
    return definitions.find("include.streams", Stream, "stream", other=MACHINERY, folder=folder)


def get(name: str) -> Stream:
    """One stream.

    Raises:
        UserError: There is none of that name, or its file is broken.
    """
    return definitions.get(find(), "stream", name)
