"""A data set that comes inside a Python package."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.datasets.sources.source import Scan, Source, Whole, numbered
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Packaged(Source):
    """A data set that comes inside a Python package.

    Attributes:
        function: What returns it, as ``package.module:name``; a pandas frame, or a scikit-learn bunch.
        arguments: Passed to it by keyword.
        number: Name of a column to add with the number of the row, for data without an id of its own.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    number: str | None = None

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa

        found = self._load()(**self.arguments)
        table = pa.Table.from_pandas(getattr(found, "frame", found), preserve_index=False)
        return numbered(str(self), table, self.number)

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """All of its rows, unless its function fetches them from elsewhere."""
        self._load()
        fetched = self.function.rpartition(":")[2].startswith("fetch_")
        yield None if fetched else Whole(self.rows(None, None))

    def __str__(self) -> str:
        return self.function

    def _load(self) -> Any:
        module, _, path = self.function.partition(":")
        try:
            found = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError, ValueError) as error:
            raise NonRetryableError(
                f"The packaged data set {self.function!r} cannot be imported: {error}.",
                "Write package.module:function, and have the package installed.",
            ) from error
        return found
