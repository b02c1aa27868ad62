"""Writing the definition of a dataset from a user's file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pyarrow import csv

from include.datasets import definitions, new
from include.errors import UserError
from include.versions import selection
from include.versions.manifest import Interval

ROWS = pa.table(
    {
        "order_id": range(400),
        "amount": [float(number % 17) if number % 5 else None for number in range(400)],
        "shop": ["north" if number % 3 else "south" for number in range(400)],
        "comment": [f"text {number}" for number in range(400)],
        "returned": ["yes" if number % 17 > 8 else "no" for number in range(400)],
    }
)


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    file = tmp_path / "orders.csv"
    csv.write_csv(ROWS, file)
    return file


def test_a_written_definition_publishes_and_trains(orders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    new.write("orders", orders, "returned", folder)
    found = definitions.find(folder)
    assert not found.broken
    dataset = found.valid["orders"]
    assert dataset.record_id == "order_id"
    with dataset.source.scan(None, None) as scan:
        chosen = selection.select(dataset, scan, Interval())
        parts = {split: part.taken().to_pandas() for split, part in chosen.parts()}
    assert dataset.feature_names(chosen.schema.names) == ["amount", "shop"]
    for model in dataset.estimators().values():
        model.fit(parts["train"][["amount", "shop"]], parts["train"]["returned"])
    assert model.score(parts["test"][["amount", "shop"]], parts["test"]["returned"].to_numpy()) > 0.3


def test_a_number_makes_a_regression_and_a_time_makes_a_time_split(tmp_path: Path) -> None:
    file, folder = tmp_path / "sales.parquet", tmp_path / "definitions"
    folder.mkdir()
    day = pa.array(range(100), pa.int32()).cast(pa.date32())
    columns = {"day": day, "rain": [float(n % 7) for n in range(100)], "sold": [float(n) for n in range(100)]}
    pyarrow.parquet.write_table(pa.table(columns), file)
    new.write("sales", file, "sold", folder)
    dataset = definitions.find(folder).valid["sales"]
    assert (dataset.kind, dataset.event_time, dataset.record_id) == ("regression", "day", "day")
    assert type(dataset.split).__name__ == "TimeSplit"


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("Orders!", "returned", "'Orders!' cannot name a dataset"),
        ("digits", "returned", "The name 'digits' is taken"),
        ("orders", "refunded", "has no column 'refunded'; it has order_id, amount"),
    ],
)
def test_what_cannot_be_written_is_told(orders: Path, name: str, target: str, says: str) -> None:
    before = sorted(new.FOLDER.iterdir())
    with pytest.raises(UserError, match=says):
        new.write(name, orders, target)
    assert sorted(new.FOLDER.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "does not exist"),
        ("orders.xlsx", b"", "neither CSV nor Parquet"),
        ("empty.csv", b"", "cannot be read"),
        ("heading.csv", b"a,b\n", "has no rows"),
        ("broken.parquet", b"nothing", "cannot be read"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3: 1,2,3. Mend the file."),
        ("binary.csv", b"a,b\n1\x1b[2J\n", r"got 1: 1\?\[2J. Mend"),
        ("latin.csv", b"gr\xf6\xdfe,b\n1,2\n", "is not in UTF-8"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "has several columns a. Rename"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=says):
        new.read(file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    for directory in (tmp_path, tmp_path / "rows.csv"):
        with pytest.raises(UserError, match="is a directory, not a file"):
            new.read(directory)


def test_the_likely_target() -> None:
    assert new.likely_target(ROWS) == "returned"
    assert new.likely_target(pa.table({"label": [1], "amount": [2]})) == "label"
