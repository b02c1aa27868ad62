"""Parquet files with every type of column: as ids, as targets and as features."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from include.datasets import Dataset, File, GroupSplit, HashSplit, TimeSplit
from include.datasets.sources import Whole
from include.error_codes import Code
from include.versions import packing
from include.versions.assembly import Assembly
from include.versions.leakage import id_keys
from include.versions.manifest import SPLITS, Column, Interval, Message
from include.versions.selection import select
from tests.errors import raises

N = 200
X = np.random.default_rng(0).normal(size=N)
DAYS = [date(2020, 1, 1) + timedelta(n) for n in range(N)]
TIMES = [datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))) + timedelta(hours=n) for n in range(N)]
WORDS = [f"word {n}" for n in range(N)]

IDS: dict[str, pa.Array] = {
    "uint64": pa.array([2**63 + n for n in range(N)], pa.uint64()),
    "largest uint64": pa.array([2**64 - 1 - n for n in range(N)], pa.uint64()),
    "uint8": pa.array(range(N), pa.uint8()),
    "uuid": pa.array([uuid.UUID(int=n * 2**90).bytes for n in range(N)], pa.uuid()),
    "16 bytes": pa.array([uuid.UUID(int=n * 2**90).bytes for n in range(N)], pa.binary(16)),
    "dictionary": pa.array(WORDS).dictionary_encode(),
    "dictionary of numbers": pa.array(range(N)).dictionary_encode(),
    "string": pa.array(WORDS),
    "large_string": pa.array(WORDS, pa.large_string()),
    "string_view": pa.array(WORDS, pa.string_view()),
    "binary": pa.array([word.encode() for word in WORDS]),
    "bytes": pa.array([bytes([255, n]) for n in range(N)]),
    "binary_view": pa.array([bytes([255, n]) for n in range(N)], pa.binary_view()),
    "decimal": pa.array([Decimal(10**25 + n) for n in range(N)], pa.decimal128(38)),
    "small decimal": pa.array([Decimal(n) / 4 for n in range(N)], pa.decimal128(10, 2)),
    "float": pa.array([float(n) for n in range(N)]),
    "float16": pa.array(np.arange(N, dtype=np.float16)),
    "date32": pa.array(DAYS),
    "date64": pa.array(DAYS, pa.date64()),
    "time32": pa.array([time(n % 24, n // 24) for n in range(N)], pa.time32("s")),
    "time64": pa.array([time(n % 24, n // 24, 1, n) for n in range(N)], pa.time64("ns")),
    "timestamp[s]": pa.array(TIMES, pa.timestamp("s")),
    "timestamp[ns] of a zone": pa.array(TIMES, pa.timestamp("ns", "Asia/Kolkata")),
    "timestamp[ns] of an offset": pa.array(TIMES, pa.timestamp("ns", "+05:30")),
    "duplicated words": pa.array([f"{n}" if n else "1.0" for n in range(N)]),
    "zeros in front": pa.array([("0" * (n % 3)) + str(1 + n // 3) for n in range(N)]),
}


def dataset(path: Path, columns: dict[str, Any], **fields: Any) -> Dataset:
    parquet.write_table(pa.table(columns), path)
    given: dict[str, Any] = {
        "name": "types",
        "source": File(str(path)),
        "record_id": "id",
        "target": "y",
        "split": HashSplit(0.4),
        "models": dict,
        **fields,
    }
    return Dataset(**given)


def published(definition: Dataset) -> dict[str, pa.Table]:
    """The rows of a version as training reads them, by split."""
    with definition.source.scan(None, None) as scan:
        sent = [(b, value.to_pybytes()) for b, value in packing.packed(select(definition, scan, Interval()))]
    found: dict[str, pa.Table] = {}
    for split in SPLITS:
        batches = [(b, pa.ipc.open_stream(value).read_next_batch()) for b, value in sent if b.split == split]
        schema = batches[0][1].schema
        messages = [Message(0, 0, split, b.number, b.rows, blake3=b.blake3) for b, _ in batches]
        assembly = Assembly(messages, [Column(field.name, str(field.type)) for field in schema])
        for b, rows in batches:
            assembly.put(b.number, rows)
        found[split] = assembly.table()
    return found


@pytest.mark.parametrize("kind", IDS)
def test_every_type_can_be_a_record_id(kind: str, tmp_path: Path) -> None:
    shuffled = np.random.default_rng(1).permutation(N)
    # Views cannot be taken from.
    kinds = {"string_view": pa.string(), "binary_view": pa.binary()}
    ids = IDS[kind].cast(kinds[kind]) if kind in kinds else IDS[kind]
    columns = {"id": ids.take(pa.array(shuffled)).cast(IDS[kind].type), "x": X[shuffled], "y": shuffled % 2}
    parts = published(dataset(tmp_path / "rows.parquet", columns))
    assert sum(part.num_rows for part in parts.values()) == N
    together = pa.concat_tables(parts.values())
    assert len(set(together["id"].to_pylist())) == N
    values = dict(zip(X.tolist(), range(N), strict=True))
    assert all(values[x] % 2 == y for x, y in zip(together["x"].to_pylist(), together["y"].to_pylist(), strict=True))
    assert len(id_keys(together["id"])) == N


@pytest.mark.parametrize("kind", IDS)
def test_every_type_can_be_a_group(kind: str, tmp_path: Path) -> None:
    columns = {"id": range(2 * N), "by": pa.concat_arrays([IDS[kind]] * 2), "x": [*X, *X], "y": [0, 1] * N}
    parts = published(dataset(tmp_path / "rows.parquet", columns, split=GroupSplit("by", 0.4)))
    sides = [set(part["by"].to_pylist()) for part in parts.values()]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    "values",
    [
        IDS[kind]
        for kind in ("date32", "date64", "timestamp[s]", "timestamp[ns] of a zone", "timestamp[ns] of an offset")
    ]
    + [IDS["timestamp[s]"].dictionary_encode()],
    ids=lambda values: str(values.type),
)
def test_every_type_of_time_can_be_an_event_time(values: pa.Array, tmp_path: Path) -> None:
    columns = {"id": range(N), "at": values, "x": X, "y": [n % 2 for n in range(N)]}
    definition = dataset(tmp_path / "rows.parquet", columns, event_time="at", split=TimeSplit("48 hours"))
    parts = published(definition)
    assert max(parts["train"]["at"].to_pylist()) < min(parts["test"]["at"].to_pylist())


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (pa.array(["a", "b"] * 100).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"] * 100, pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b"] * 100, pa.string_view()), ["a", "b"]),
        (pa.array([b"a", b"b"] * 100), ["a", "b"]),
        (pa.array([0, 1] * 100, pa.uint64()), [0, 1]),
        (pa.array([0, 1] * 100, pa.int8()), [0, 1]),
        (pa.array([True, False] * 100), [False, True]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_every_type_of_class_can_be_a_target(values: pa.Array, classes: list[Any], tmp_path: Path) -> None:
    definition = dataset(tmp_path / "rows.parquet", {"id": range(N), "x": X, "y": values})
    with definition.source.scan(None, None) as scan:
        assert select(definition, scan, Interval()).classes == classes
    parts = published(definition)
    assert set(parts["train"]["y"].to_numpy()) == set(classes)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[n] for n in range(N)]),
        pa.array([[n] for n in range(N)], pa.list_(pa.int64(), 1)),
        pa.array([{"a": n} for n in range(N)]),
        pa.array([[(n, n)] for n in range(N)], pa.map_(pa.int64(), pa.int64())),
        pa.array([timedelta(n) for n in range(N)]),
        pa.array([b"a"] * N),
        pa.array([b"a"] * N, pa.binary_view()),
    ],
    ids=lambda values: str(values.type),
)
def test_a_feature_that_models_cannot_use_is_an_error(values: pa.Array, tmp_path: Path) -> None:
    columns = {"id": range(N), "x": X, "odd": values, "y": [n % 2 for n in range(N)]}
    definition = dataset(tmp_path / "rows.parquet", columns, features=["x", "odd"])
    with raises(Code.COLUMN_UNUSABLE, "field features", f"'odd' is {str(values.type).partition('<')[0]}"):
        published(definition)
    # A column that the definition does not name may have any type.
    parts = published(dataset(tmp_path / "rows.parquet", columns))
    assert parts["train"].column_names == ["id", "x", "y"]


def test_a_list_cannot_be_a_record_id(tmp_path: Path) -> None:
    columns = {"id": [[n] for n in range(N)], "x": X, "y": [n % 2 for n in range(N)]}
    with raises(Code.COLUMN_UNUSABLE, "field record_id", "'id' is list<"):
        published(dataset(tmp_path / "rows.parquet", columns))


def test_dictionaries_stay_categories_of_models(tmp_path: Path) -> None:
    shop = pa.array(["north" if n % 3 else "south" for n in range(N)]).dictionary_encode()
    parts = published(dataset(tmp_path / "rows.parquet", {"id": range(N), "shop": shop, "y": [0, 1] * 100}))
    assert str(parts["train"].select(["shop"]).to_pandas()["shop"].dtype) == "category"


def test_rows_in_memory_are_plain_too() -> None:
    columns = {"id": IDS["uuid"], "x": X, "y": [n % 2 for n in range(N)]}
    definition = Dataset(
        name="types", source=File("x.csv"), record_id="id", target="y", split=HashSplit(0.4), models=dict
    )
    chosen = select(definition, Whole(pa.table(columns)), Interval())
    assert chosen.schema.field("id").type == pa.string()
