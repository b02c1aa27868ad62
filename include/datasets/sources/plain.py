"""Converts columns to plain types, without encodings such as dictionaries, views, run ends and extension types."""

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
        keys: The columns whose values are compared and hashed. Other columns stay dictionaries, which models treat as
            categories.
    """

    def __init__(self, scan: Scan, keys: Collection[str]) -> None:
        import pyarrow as pa
        import pyarrow.types as types

        self._scan, self._stay, self._keys = scan, set(), set(keys)
        fields, unfit = [], {}
        for field in scan.schema:
            key = field.name in keys
            stays = types.is_dictionary(field.type) and not key
            kind = field.type if stays else plain_type(field.type, key)
            if kind == field.type:
                self._stay.add(field.name)
            if not _is_fit(plain_type(kind)):
                unfit[field.name] = str(field.type)
            fields.append(pa.field(field.name, kind))
        self.schema = pa.schema(fields)
        self.unfit = {**unfit, **scan.unfit}
        self.certain = scan.certain

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if self._stay.issuperset(columns):
            yield from self._scan.batches(columns)
            return
        for batch in self._scan.batches(columns):
            arrays = [
                column if name in self._stay else plain(column, name in self._keys)
                for name, column in zip(columns, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def plain_type(kind: pa.DataType, key: bool = False) -> pa.DataType:
    """The plain type for values of a type; a UUID becomes text.

    Args:
        key: Whether the values are compared and hashed; bytes become text then, too.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type, key)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind.extension_name == "arrow.uuid" else plain_type(kind.storage_type, key)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return pa.string() if key else pa.binary()
    if types.is_fixed_size_binary(kind) and key:
        return pa.string()
    # Arrow cannot sort half floats, and not every estimator accepts them.
    return pa.float32() if types.is_float16(kind) else kind


def plain(values: pa.Array | pa.ChunkedArray, key: bool = False) -> pa.Array | pa.ChunkedArray:
    """The same values in plain types; ``key`` as for ``plain_type``."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([plain(chunk, key) for chunk in values.chunks], plain_type(values.type, key))
    kind = values.type
    if types.is_dictionary(kind):
        return plain(values.dictionary_decode(), key)
    if types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values), key)
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return _texts(values.storage)
        return plain(values.storage, key)
    wanted = plain_type(kind, key)
    if types.is_string(wanted) and not types.is_string_view(kind) and not types.is_string(kind):
        return _texts(values)
    return values.cast(wanted)


def cast(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Converts values to another type; a decimal becomes the nearest double.

    Arrow's own cast divides, and misses the nearest double for one value in seven.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError: The type cannot hold a value.
    """
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_decimal(values.type) and types.is_floating(kind):
        return values.cast(pa.string()).cast(kind)
    return values.cast(kind)


def _texts(values: pa.Array) -> pa.Array:
    """Bytes as text: a UUID if the type has 16 bytes, otherwise decoded UTF-8, or hexadecimal digits."""
    import pyarrow as pa
    import pyarrow.types as types

    whole = types.is_fixed_size_binary(values.type) and values.type.byte_width == 16

    def text(value: bytes) -> str:
        if whole:
            return str(uuid.UUID(bytes=value))
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()

    return pa.array([None if value is None else text(value) for value in values.to_pylist()], pa.string())


def _is_fit(kind: pa.DataType) -> bool:
    """Whether values of a plain type can be a feature or an id."""
    import pyarrow.types as types

    return not (
        types.is_nested(kind)
        or types.is_duration(kind)
        or types.is_interval(kind)
        or types.is_binary(kind)
        or types.is_fixed_size_binary(kind)
    )
