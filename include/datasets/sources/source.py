"""What every source has in common: rows, as a table or in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_ROWS = 32_768


class Scan(ABC):
    """Rows that can be gone through several times, a batch at a time: the same rows in the same order each time.

    Attributes:
        schema: Of all columns.
        unfit: Columns that no model learns from and no id is made of, such as ``jsonb``, with their types' names.
        certain: What of it is that of the whole source: all its ``rows``, the ``types`` of its columns, or no more than
            their ``names``.
    """

    schema: pa.Schema
    unfit: Mapping[str, str] = {}
    certain: Literal["rows", "types", "names"] = "rows"

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows from the first to the last, with these columns in this order.

        Raises:
            UserError: The rows cannot be read.
        """


class Whole(Scan):
    """Rows that are in memory."""

    def __init__(self, rows: pa.Table) -> None:
        self.schema = rows.schema
        self._rows = rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._rows.select(list(columns)).to_batches(max_chunksize=SCAN_ROWS)


class Source(ABC):
    """Something that has rows."""

    @abstractmethod
    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        """Its rows as an Arrow table; a source may leave out those outside [start, end) (UTC), if it can.

        Raises:
            UserError: The source is not there or cannot be read.
        """

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Its rows in batches; a source of more rows than fit into memory overrides this.

        Raises:
            UserError: The source is not there or cannot be read.
        """
        yield Whole(self.rows(start, end))

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """What can be known of its rows at once, for ``check``; None when that takes long, or cannot be known before.

        Raises:
            UserError: The source is not there or cannot be read.
        """
        yield None


def numbered(source: str, rows: pa.Table, number: str | None) -> pa.Table:
    """The rows with a column of their numbers in front, if one is wanted."""
    import pyarrow as pa

    require_free(source, number, rows.column_names)
    return rows if number is None else rows.add_column(0, number, pa.array(range(rows.num_rows), pa.int64()))


def require_free(source: str, number: str | None, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NonRetryableError(f"{source} has several columns called {', '.join(twice)}.", "Rename all but one.")
    if number in names:
        raise NonRetryableError(
            f"{source} has a column {number!r}, and its rows' numbers are to be one of the same name.",
            "Give number= another name.",
        )
