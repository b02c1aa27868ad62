"""The output of every benchmark: median and spread of its repetitions, a table, a JSON file."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

progress = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of the repetitions of one measurement."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


def shuffled(names: Iterable[str], repetition: int) -> list[str]:
    """The order of one repetition, the same in each run, so that not always the same one runs after a heavy one."""
    order = list(names)
    random.Random(repetition).shuffle(order)
    return order


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table, its first column aligned left and the others right, with notes below."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    # For a file or a pipe rich assumes 80 columns, which are too few for the table.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def write(json_path: str | None, results: Mapping[str, Any], ratios: Mapping[str, float], **setting: Any) -> None:
    """Write the results to a file, if there is one; a ratio is ours divided by the other."""
    if json_path:
        report = {**setting, "results": results, "ratios": ratios}
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")
