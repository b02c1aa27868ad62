"""The hash that decides the part and the identity of a record, whatever the type of its id."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from include.datasets.hashing import FIRST_RULE, hash64, identities, integers

IDS = [1, 2001, -5, 0]
DAYS = [date(2024, 1, 2), date(1969, 5, 6)]
MIDNIGHTS = [datetime(day.year, day.month, day.day) for day in DAYS]
MOMENTS = [datetime(2024, 1, 2, 3, 4, 5, 600)]
UUIDS = [uuid.UUID(int=2**100 + 7), uuid.UUID(int=5)]


def hashes(values: list[Any], type_: pa.DataType | None = None, rule: str | None = None) -> list[int]:
    column = pa.chunked_array([pa.array(values, type_)])
    return list((hash64(column, "salt") if rule is None else hash64(column, "salt", rule)).tolist())


@pytest.mark.parametrize("type_", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()], ids=str)
def test_an_id_is_the_same_record_in_every_type(type_: pa.DataType) -> None:
    values = [1, 100, -5, 0]
    assert hashes(values, type_) == hashes(values)


def test_an_id_is_the_same_record_as_text_and_as_a_decimal() -> None:
    assert hashes(["1", "2001", "-5", "0"]) == hashes(IDS)
    assert hashes(["001", "2001.0", "-5e0", "+0"]) == hashes(IDS)
    assert hashes([Decimal("1.00"), Decimal("2001.00"), Decimal("-5.00"), Decimal("0.00")]) == hashes(IDS)
    assert hashes(["1", "2001", "A-2001", "-5", "0"])[:2] == hashes(IDS)[:2]


def test_fractions_are_the_same_record_in_every_type() -> None:
    assert hashes([1.5, 0.1]) == hashes(["1.50", ".1"]) == hashes([Decimal("1.50"), Decimal("0.10")])
    assert hashes([1e300, 1e-300]) == hashes(["1e300", "1E-300"])


def test_ids_beyond_63_bits() -> None:
    large = 2**63 + 5
    assert hashes([large], pa.uint64()) == hashes([str(large)]) == hashes([Decimal(large)])
    assert hashes([10**25], pa.decimal128(38)) == hashes([str(10**25)]) == hashes([1e25])


@pytest.mark.parametrize(
    "type_",
    [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns", "UTC")],
    ids=str,
)
def test_a_moment_is_the_same_record_in_every_unit(type_: pa.DataType) -> None:
    assert hashes(MIDNIGHTS, type_) == hashes(DAYS) == hashes(MIDNIGHTS, pa.date64())


def test_a_moment_is_the_same_record_as_text() -> None:
    assert hashes([str(day) for day in DAYS]) == hashes(DAYS)
    written = ["2024-01-02 03:04:05.000600", "2024-01-02T03:04:05.0006Z", "2024-01-02T04:04:05.000600999+01:00"]
    for text in written:
        assert hashes([text]) == hashes(MOMENTS), text
    assert hashes([time(1, 2)]) == hashes(["01:02"]) == hashes(["01:02:00"])


def test_dictionaries_and_uuids_are_their_values() -> None:
    texts = pa.array(["a", "b", "7"])
    assert hash64(texts.dictionary_encode()).tolist() == hash64(texts).tolist()
    names = [str(value) for value in UUIDS]
    assert hash64(pa.array([value.bytes for value in UUIDS], pa.uuid())).tolist() == hash64(pa.array(names)).tolist()
    assert (
        hash64(pa.array([value.bytes for value in UUIDS], pa.binary(16))).tolist() == hash64(pa.array(names)).tolist()
    )


@pytest.mark.parametrize(
    "values",
    [
        ["2024-13-40", "25:61", "1e999", "1e", "-", "", "ü", "\uff11\uff12", "\u0663"],
        [b"\xff\x00", b""],
        [True, False],
        [float("nan"), float("inf")],
    ],
    ids=["texts", "bytes", "booleans", "no numbers"],
)
def test_a_text_that_is_not_a_number_or_a_time_has_its_own_hash(values: list[Any]) -> None:
    assert len(set(hashes(values))) == len(values)


def test_the_first_rule_has_not_changed() -> None:
    assert hashes([0, 1, -1], rule=FIRST_RULE) == [10315271002620659901, 6405808023690938524, 2993332858645922988]
    assert hashes(["a", "ü"], rule=FIRST_RULE) == [1340192464899390188, 5860248454233403251]
    assert hashes([date(1970, 1, 2)], rule=FIRST_RULE) == [6405808023690938524]
    assert hashes([0, 1, -1]) == hashes([0, 1, -1], rule=FIRST_RULE)


def test_a_record_is_found_by_the_rule_of_its_version() -> None:
    ids = pa.array(["1", "a"])
    assert [found.tolist() for found in identities(ids)] == [
        hash64(ids).tolist(),
        hash64(ids, rule=FIRST_RULE).tolist(),
    ]
    assert len(identities(pa.array([1, 2]))) == 1
    assert len(identities(pa.array([date(1970, 1, 2)]))) == 2


def test_integers_keep_their_bits() -> None:
    found = integers(pa.array([2**63 + 5, 1], pa.uint64()))
    assert found is not None and found.view("u8").tolist() == [2**63 + 5, 1]
    assert integers(pa.array(["1"])) is None
