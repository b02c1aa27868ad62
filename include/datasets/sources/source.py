"""The interface of sources: rows as a table, or as a scan in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_ROWS = 32_768


class Scan(ABC):
    """Rows in batches. Every pass returns the same rows in the same order.

    Attributes:
        schema: The schema of all columns.
        unfit: The columns that cannot be a feature or an id, such as ``jsonb``, with the names of their types.
        certain: How much of the scan holds for the whole source: all ``rows``, the ``types`` of the columns, or their
            ``names`` only.
    """

    schema: pa.Schema
    unfit: Mapping[str, str] = {}
    certain: Literal["rows", "types", "names"] = "rows"

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, with these columns in this order.

        Raises:
            UserError: The rows cannot be read.
        """


class Whole(Scan):
    """A scan of rows that are in memory."""

    def __init__(self, rows: pa.Table) -> None:
        self.schema = rows.schema
        self._rows = rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._rows.select(list(columns)).to_batches(max_chunksize=SCAN_ROWS)


class Source(ABC):
    """A provider of rows."""

    @abstractmethod
    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        """All rows as an Arrow table. A source may leave out rows outside [start, end) (UTC).

        Raises:
            UserError: The source does not exist or cannot be read.
        """

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Scans the rows in batches. A source with more rows than fit into memory overrides this.

        Raises:
            UserError: The source does not exist or cannot be read.
        """
        yield Whole(self.rows(start, end))

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """Scans what ``check`` can read quickly; None if nothing can be known without publishing.

        Raises:
            UserError: The source does not exist or cannot be read.
        """
        yield None


def numbered(source: str, rows: pa.Table, number: str | None) -> pa.Table:
    """The rows, after a column of row numbers if ``number`` names one."""
    import pyarrow as pa

    require_free(source, number, rows.column_names)
    return rows if number is None else rows.add_column(0, number, pa.array(range(rows.num_rows), pa.int64()))


def require_free(source: str, number: str | None, names: Sequence[str]) -> None:
    """Raises NonRetryableError if two columns have the same name, or ``number`` names an existing one."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise NonRetryableError(
            f"{source} has several columns with the name {', '.join(repeated)}.",
            "Rename all but one.",
            code=Code.COLUMN_DUPLICATED,
        )
    if number in names:
        raise NonRetryableError(
            f"{source} already has a column {number!r}, so number={number!r} cannot add a column of that name.",
            f"Choose another name for the row numbers, such as number={f'{number}_number'!r}.",
            code=Code.COLUMN_DUPLICATED,
        )
