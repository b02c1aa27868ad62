"""Columns: which columns of a source a version has, with which types."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.datasets.definition import Dataset
from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

    from include.datasets.sources import Scan

log = logging.getLogger(__name__)


def key_columns(dataset: Dataset) -> list[str]:
    """The columns that decide which rows a version has, in which part and in which order."""
    names = (dataset.record_id, dataset.event_time, dataset.split.column, dataset.target)
    return list(dict.fromkeys(name for name in names if name))


def version_columns(dataset: Dataset, scan: Scan) -> tuple[pa.Schema, list[str]]:
    """The schema of a version of the dataset, and the features among its columns.

    Raises:
        NonRetryableError: A column is missing or unusable, or none is left to learn from.
    """
    import pyarrow as pa

    found = scan.schema
    features = dataset.feature_names(found.names)
    if dataset.features is None and (unfit := [name for name in features if name in scan.unfit]):
        log.info("Left out of the features: %s.", ", ".join(f"{name} ({scan.unfit[name]})" for name in unfit))
        features = [name for name in features if name not in unfit]
    by_field: dict[str, Sequence[str]] = {
        "record_id": [dataset.record_id],
        "event_time": [dataset.event_time] if dataset.event_time else [],
        "split": [dataset.split.column] if dataset.split.column else [],
        "features": features,
        "target": [dataset.target],
        "slices": dataset.slice_columns(found.names),
    }
    for field, names in by_field.items():
        _require_columns(dataset, scan, field, names)
    if not features:
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: no column is left to learn from.",
            "Name columns in features, or add some to the source.",
            code=Code.FEATURES_MISSING,
        )
    names = list(dict.fromkeys(name for names in by_field.values() for name in names))
    # Models compute with doubles; the columns that identify and divide records stay exact.
    exact = {dataset.record_id, dataset.event_time, dataset.split.column}
    return pa.schema([(name, _learnable(found.field(name).type, name in exact)) for name in names]), features


def typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the types of the version's schema."""
    import pyarrow as pa

    from include.datasets.sources.plain import cast

    columns = zip(batch.columns, schema, strict=True)
    return pa.RecordBatch.from_arrays(
        [column if column.type == field.type else cast(column, field.type) for column, field in columns], schema=schema
    )


def require_target_type(dataset: Dataset, kind: pa.DataType) -> None:
    """Raises NonRetryableError if the dataset's kind does not allow a target of this type."""
    import pyarrow.types as types

    about = f"Dataset {dataset.name!r}, field target: the column {dataset.target!r} is {kind}"
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if dataset.kind == "regression" and not numeric:
        raise NonRetryableError(
            f"{about}, and a regression predicts numbers.",
            "Name another target, or set kind='classification'.",
            code=Code.TARGET_UNUSABLE,
        )
    if dataset.kind == "classification" and (types.is_temporal(kind) or types.is_decimal(kind)):
        raise NonRetryableError(
            f"{about}, which cannot be classes.",
            "Name another target, or have the source return text or whole numbers: in SQL target::integer or "
            "target::text.",
            code=Code.TARGET_UNUSABLE,
        )


def _require_columns(dataset: Dataset, scan: Scan, field: str, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in scan.schema.names]:
        raise NonRetryableError(
            f"Dataset {dataset.name!r}, field {field}: its source has no column {', '.join(missing)}; "
            f"it has {', '.join(scan.schema.names)}.",
            "Correct the definition.",
            code=Code.COLUMN_MISSING,
        )
    if field != "slices" and (unfit := [name for name in names if name in scan.unfit]):
        raise NonRetryableError(
            f"Dataset {dataset.name!r}, field {field}: the column {unfit[0]!r} is {scan.unfit[unfit[0]]}, which this "
            "field does not allow.",
            "Name another column, or have the source return it, or a part of it, as text or a number.",
            code=Code.COLUMN_UNUSABLE,
        )


def _learnable(type_: pa.DataType, exact: bool) -> pa.DataType:
    import pyarrow as pa

    return pa.float64() if pa.types.is_decimal(type_) and not exact else type_
