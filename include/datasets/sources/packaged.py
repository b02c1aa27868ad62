"""The source `Packaged`: a data set inside a Python package."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.datasets.sources.source import Scan, Source, Whole, numbered
from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Packaged(Source):
    """A data set inside a Python package.

    Attributes:
        function: The function that returns it, as ``package.module:name``: a pandas frame, or a scikit-learn bunch.
        arguments: Keyword arguments of the function.
        number: The name of a column to add with the number of the row, for rows without an id.
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
        """All rows; None if the name of the function begins with ``fetch_``, since it would download them."""
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
                'Write it as "package.module:function", and install the package.',
                code=Code.PACKAGE_UNAVAILABLE,
            ) from error
        return found
