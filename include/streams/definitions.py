"""Finds the streams of this folder: every file that is not one of ``MACHINERY`` defines one."""

from __future__ import annotations

from pathlib import Path

from include import definitions
from include.definitions import Found
from include.streams.definition import Stream

MACHINERY = frozenset(
    {
        *("change_events", "connect_types", "definition", "definitions", "encoding", "field", "indexes", "keys"),
        *("masks", "parts", "paths", "period", "produce", "times"),
    }
)


def find(folder: Path | None = None) -> Found[Stream]:
    """Every stream by name, and the error of every broken file."""
    return definitions.find("include.streams", Stream, "stream", other=MACHINERY, folder=folder)


def get(name: str) -> Stream:
    """The stream with this name.

    Raises:
        UserError: No file defines it, or its file is broken.
    """
    return definitions.get(find(), "stream", name)
