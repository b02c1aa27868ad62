"""Models that predict rows of other types than those they were trained on."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from include.registry.model import _cast, _family, _family_by_name

NUMBERS = [pa.int8(), pa.uint8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(5, 1)]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
TYPES = [*NUMBERS, *TEXTS, pa.bool_(), pa.null(), pa.date32(), pa.timestamp("us"), pa.timestamp("ns", "UTC")]


def cast(values: list[Any], given: pa.DataType, wanted: pa.DataType) -> pa.ChunkedArray:
    return _cast(pa.chunked_array([pa.array(values, given)]), pa.field("x", wanted))


@pytest.mark.parametrize("wanted", [*NUMBERS, pa.bool_(), pa.null()], ids=str)
@pytest.mark.parametrize("given", [*NUMBERS, pa.bool_(), pa.null()], ids=str)
def test_numbers_of_every_type_are_converted_without_loss(given: pa.DataType, wanted: pa.DataType) -> None:
    values: list[Any] = [1, 0, 1] if not pa.types.is_boolean(given) else [True, False, True]
    column = pa.nulls(3) if pa.types.is_null(given) else pa.array(values).cast(pa.int8()).cast(given)
    taken = _cast(pa.chunked_array([column]), pa.field("x", wanted)).to_pandas()
    assert taken.isna().all() if pa.types.is_null(given) else [float(value) for value in taken] == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "given", "wanted"),
    [
        ([2.5, None], pa.float64(), pa.int64()),
        ([300], pa.int64(), pa.int8()),
        ([-1], pa.int64(), pa.uint64()),
        ([2**63 + 1], pa.uint64(), pa.int64()),
        ([2], pa.int64(), pa.bool_()),
        ([2**53 + 1], pa.int64(), pa.float64()),
    ],
)
def test_a_number_that_does_not_fit_stays_unchanged(values: list[Any], given: pa.DataType, wanted: pa.DataType) -> None:
    assert cast(values, given, wanted).to_pylist() == values


@pytest.mark.parametrize(
    ("given", "wanted"), [(pa.string(), pa.int64()), (pa.int64(), pa.string()), (pa.date32(), pa.int64())], ids=str
)
def test_types_that_cannot_be_converted_are_named(given: pa.DataType, wanted: pa.DataType) -> None:
    with pytest.raises(pa.ArrowTypeError, match=re.escape(f"x is {given} and must be {wanted}")):
        cast([], given, wanted)


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_a_types_name_has_the_family_of_the_type(type_: pa.DataType) -> None:
    if _family(type_) in ("number", "text"):
        assert _family_by_name(str(type_)) == _family(type_)
        assert _family_by_name(str(pa.dictionary(pa.int32(), type_))) == _family(type_)
    else:
        assert _family_by_name(str(type_)) not in ("number", "text")
