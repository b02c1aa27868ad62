"""Writing the definition of a dataset from a user's file."""

from __future__ import annotations

import ast
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from pyarrow import csv

from cli.scaffold import dataset as new
from include.datasets import Dataset, File, definitions
from include.datasets.profiling import likely_target
from include.error_codes import Code
from include.versions import selection
from include.versions.manifest import Interval
from tests.errors import raises

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "definitions"
    folder.mkdir()
    return folder


def written(folder: Path, file: Path, target: str, columns: dict[str, Any] | None = None) -> Dataset:
    """The dataset for a file with these columns."""
    if columns is not None:
        rows = pa.table(columns)
        csv.write_csv(rows, file) if file.suffix == ".csv" else pyarrow.parquet.write_table(rows, file)
    new.write("found", file, target, folder)
    found = definitions.find(folder)
    assert not found.broken
    return found.valid["found"]


def selected(dataset: Dataset) -> dict[str, pa.RecordBatch]:
    with dataset.source.scan(None, None) as scan:
        return {split: part.to_batch() for split, part in selection.select(dataset, scan, Interval()).parts()}


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
        parts = {split: part.to_batch().to_pandas() for split, part in chosen.parts()}
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
    ("name", "target", "code", "values"),
    [
        ("Orders!", "returned", Code.INVALID_NAME, ["'Orders!'"]),
        ("digits", "returned", Code.DEFINITION_EXISTS, ["'digits'"]),
        ("orders", "refunded", Code.COLUMN_MISSING, ["'refunded'", "order_id, amount"]),
    ],
)
def test_nothing_is_written_after_an_error(orders: Path, name: str, target: str, code: Code, values: list[str]) -> None:
    before = sorted(new.FOLDER.iterdir())
    with raises(code, *values):
        new.write(name, orders, target)
    assert sorted(new.FOLDER.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "code", "value"),
    [
        ("missing.csv", None, Code.FILE_NOT_FOUND, ""),
        ("orders.xlsx", b"PK\x03\x04", Code.FILE_UNREADABLE, ""),
        ("empty.csv", b"", Code.FILE_EMPTY, ""),
        ("heading.csv", b"a,b\n", Code.FILE_EMPTY, ""),
        ("broken.parquet", b"PAR1nothing", Code.FILE_UNREADABLE, ""),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", Code.FILE_UNREADABLE, "Expected 2 columns, got 3: 1,2,3"),
        ("binary.csv", b"a,b\n1\x1b[2J\n", Code.FILE_UNREADABLE, "got 1: 1?[2J"),
        ("twice.csv", b"a,b,a\n1,2,3\n", Code.COLUMN_DUPLICATED, "name a."),
    ],
)
def test_an_unusable_file_is_an_error(tmp_path: Path, name: str, content: bytes | None, code: Code, value: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with raises(code, name, value):
        new.read(file)


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").mkdir()
    for directory in (tmp_path, tmp_path / "rows.csv"):
        with raises(Code.INVALID_PATH, directory):
            new.read(directory)


def test_the_likely_target() -> None:
    assert likely_target(ROWS) == "returned"
    assert likely_target(pa.table({"label": [1], "amount": [2]})) == "label"


def test_the_definition_of_a_plain_file_is_short(orders: Path, folder: Path) -> None:
    new.write("orders", orders, "returned", folder)
    text = (folder / "orders.py").read_text()
    assert text.startswith('"""The dataset orders, from orders.csv. Describe here')
    assert text.endswith(
        f"""dataset = Dataset(
    name="orders",
    source=File("{orders}"),
    record_id="order_id",
    target="returned",
    features=["amount", "shop"],
    split=HashSplit(test=0.25),
    models=models,
)
"""
    )


def test_columns_that_models_cannot_use_are_left_out(tmp_path: Path, folder: Path) -> None:
    numbers = range(100)
    columns = {
        "id": numbers,
        "x": [float(n % 7) for n in numbers],
        "tags": [[n] for n in numbers],
        "place": [{"lat": n} for n in numbers],
        "empty": pa.nulls(100),
        "price": [Decimal(n) for n in numbers],
        "raw": [b"%d" % n for n in numbers],
        "at": pa.array(numbers, pa.time64("us")),
        "t": ["a" if n % 3 else "b" for n in numbers],
    }
    dataset = written(folder, tmp_path / "rows.parquet", "t", columns)
    assert (dataset.record_id, dataset.features) == ("id", ["x"])
    selected(dataset)


def test_an_empty_column_of_a_csv_file_is_left_out(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,empty,t\n" + "1,,a\n2,,b\n" * 50)
    dataset = written(folder, tmp_path / "rows.csv", "t")
    assert (dataset.record_id, dataset.features) == ("row", ["x"])


def test_categories_of_pandas_are_categories(tmp_path: Path, folder: Path) -> None:
    numbers = range(200)
    columns = {
        "id": pa.array([str(n) for n in numbers]).dictionary_encode(),
        "shop": pa.array(["north" if n % 3 else None for n in numbers]).dictionary_encode(),
        "t": pa.array(["yes" if n % 3 else "no" for n in numbers]).dictionary_encode(),
    }
    dataset = written(folder, tmp_path / "rows.parquet", "t", columns)
    assert (dataset.record_id, dataset.features, dataset.kind) == ("id", ["shop"], "classification")
    parts = {split: rows.to_pandas() for split, rows in selected(dataset).items()}
    for name, model in dataset.estimators().items():
        model.fit(parts["train"][["shop"]], parts["train"]["t"])
        assert name == "baseline" or model.score(parts["test"][["shop"]], parts["test"]["t"]) == 1


def test_a_time_may_have_nanoseconds(tmp_path: Path, folder: Path) -> None:
    times = pa.array([n * 86_400_000_000_001 for n in range(100)], pa.timestamp("ns"))
    columns = {"at": times, "x": [n % 7 for n in range(100)], "t": [float(n) for n in range(100)]}
    dataset = written(folder, tmp_path / "rows.parquet", "t", columns)
    assert (dataset.event_time, str(dataset.split)) == ("at", "TimeSplit(test='24 days')")


@pytest.mark.parametrize(
    "file", ["it's.csv", 'we"""ird.csv', "{fields}.csv", "{name}.csv", "back\\slash.csv", "\\N.csv", "two\nlines.csv"]
)
@pytest.mark.parametrize(
    "columns", [("O'Brien's score", 'size "inch"'), ("{split}", "a\\b\\"), ("Größe", "\u2028\x85")]
)
def test_any_name_is_quoted_correctly(tmp_path: Path, folder: Path, file: str, columns: tuple[str, str]) -> None:
    score, target = columns
    content = {score: [n % 7 for n in range(100)], target: ["a" if n % 3 else "b" for n in range(100)]}
    dataset = written(folder, tmp_path / file, target, content)
    assert (dataset.features, dataset.target) == ([score], target)
    assert isinstance(dataset.source, File)
    assert Path(dataset.source.path) == tmp_path / file
    text = (folder / "found.py").read_text()
    assert (ast.get_docstring(ast.parse(text)) or "").startswith(f"The dataset found, from {file}. Describe here")


def test_a_path_must_be_utf8(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "gr\udcf6\udcdfe.csv"
    csv.write_csv(ROWS, str(tmp_path / "rows.csv"))
    (tmp_path / "rows.csv").rename(file)
    with raises(Code.INVALID_PATH, "UTF-8"):
        new.write("found", file, "returned", folder)
    assert not list(folder.iterdir())


def test_invalid_python_is_not_written(
    orders: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new, "TEMPLATE", tmp_path / "template.txt")
    new.TEMPLATE.write_text("dataset = Dataset(\n{fields}\n")
    with raises(Code.INVALID_NAME, "orders.csv", "'(' was never closed"):
        new.write("found", orders, "returned", folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("taken", "number"), [(["row"], "row_number"), (["row", "row_number", "row_number_2"], "row_number_3")]
)
def test_the_column_of_row_numbers_has_a_new_name(tmp_path: Path, folder: Path, taken: list[str], number: str) -> None:
    columns = {name: [n % 7 for n in range(100)] for name in taken} | {"t": ["a" if n % 3 else "b" for n in range(100)]}
    dataset = written(folder, tmp_path / "rows.csv", "t", columns)
    assert (dataset.record_id, dataset.features) == (number, taken)
    assert selected(dataset)["train"].schema.names == [number, *taken, "t"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([date(2024, 1, 1), date(2025, 1, 1)], "is a date"),
        ([datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)], "is a date"),
        ([None, None], "is empty"),
        ([[1], [2]], "is list<"),
        (pa.array([b"a", b"b"]).dictionary_encode(), "is binary"),
    ],
)
def test_a_target_that_models_cannot_predict_is_an_error(
    tmp_path: Path, folder: Path, values: Any, reason: str
) -> None:
    pyarrow.parquet.write_table(pa.table({"x": [1, 2], "due": values}), tmp_path / "rows.parquet")
    with raises(Code.TARGET_UNUSABLE, "'due'", f"rows.parquet {reason}"):
        new.write("found", tmp_path / "rows.parquet", "due", folder)
    assert not list(folder.iterdir())


def test_a_decimal_target_makes_a_regression(tmp_path: Path, folder: Path) -> None:
    columns = {"x": [n % 7 for n in range(100)], "price": [Decimal(n % 7) / 2 for n in range(100)]}
    dataset = written(folder, tmp_path / "rows.parquet", "price", columns)
    assert dataset.kind == "regression"
    parts = selected(dataset)
    for name, model in dataset.estimators().items():
        # As training passes them.
        model.fit(parts["train"].select(["x"]).to_pandas(), parts["train"]["price"].to_numpy(zero_copy_only=False))
        score = model.score(parts["test"].select(["x"]).to_pandas(), parts["test"]["price"].cast(pa.float64()))
        assert name == "baseline" or score > 0.5
