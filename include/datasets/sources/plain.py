"""Values in plain types: without what says only how they are stored, such as dictionaries, views and extensions."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from include.datasets.sources.source import Scan

if TYPE_CHECKING:
    import pyarrow as pa


class Plain(Scan):
    """The rows of another scan in plain types.

    Args:
        keys: The columns whose values are compared and hashed. Others stay dictionaries, which models know as
            categories.
    """

    def __init__(self, scan: Scan, keys: Collection[str]) -> None:
        import pyarrow as pa
        import pyarrow.types as types

        self._scan, self._stay = scan, set()
        fields = []
        for field in scan.schema:
            stays = types.is_dictionary(field.type) and field.name not in keys
            kind = field.type if stays else plain_type(field.type)
            if kind == field.type:
                self._stay.add(field.name)
            fields.append(pa.field(field.name, kind))
        self.schema = pa.schema(fields)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if self._stay.issuperset(columns):
            yield from self._scan.batches(columns)
            return
        for batch in self._scan.batches(columns):
            arrays = [
                column if name in self._stay else plain(column)
                for name, column in zip(columns, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What values of a type are in plain types; a UUID is its text."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind.extension_name == "arrow.uuid" else plain_type(kind.storage_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    return kind


def plain(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The same values in plain types."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([plain(chunk) for chunk in values.chunks], plain_type(values.type))
    kind = values.type
    if types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            found = [None if value is None else str(uuid.UUID(bytes=value)) for value in values.storage.to_pylist()]
            return pa.array(found, pa.string())
        return plain(values.storage)
    return values.cast(plain_type(kind))
