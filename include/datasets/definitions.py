"""The datasets of this folder: every file in it that is not part of the machinery defines one."""

from __future__ import annotations

from pathlib import Path

from include import definitions
from include.datasets.definition import Dataset
from include.definitions import Found

MACHINERY = frozenset({"definition", "definitions", "hashing", "profile", "sizes", "sources", "splits"})


def find(folder: Path | None = None) -> Found[Dataset]:
    """Every dataset by its name, and every broken file with its error."""
    return definitions.find("include.datasets", Dataset, "dataset", other=MACHINERY, folder=folder)


def get(name: str) -> Dataset:
    """One dataset.

    Raises:
        UserError: There is none of that name, or its file is broken.
    """
    return definitions.get(find(), "dataset", name, " --from FILE")
