"""Finds the datasets of this folder: every file that is not one of ``MACHINERY`` defines one."""

from __future__ import annotations

from pathlib import Path

from include import definitions
from include.datasets.definition import Dataset
from include.definitions import Found

MACHINERY = frozenset({"definition", "definitions", "hashing", "model_names", "sizes", "splits"})


def find(folder: Path | None = None) -> Found[Dataset]:
    """Every dataset by name, and the error of every broken file."""
    return definitions.find("include.datasets", Dataset, "dataset", other=MACHINERY, folder=folder)


def get(name: str) -> Dataset:
    """The dataset with this name.

    Raises:
        UserError: No file defines it, or its file is broken.
    """
    return definitions.get(find(), "dataset", name, " --from FILE")
