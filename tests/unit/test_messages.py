"""A version's messages depend on its rows, not on the batches of its source."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from blake3 import blake3
from pyarrow import csv, parquet

from include.datasets import Dataset, File, HashSplit
from include.datasets.sources import Scan, Whole, delimited
from include.datasets.sources import file as files
from include.error_codes import Code
from include.versions import packing
from include.versions.assembly import Assembly
from include.versions.manifest import Column, Interval, Message, Role, width
from include.versions.selection import select
from tests.errors import raises

ROWS = pa.table(
    {
        "id": np.arange(20_000),
        **{f"x{n}": np.random.default_rng(n).random(20_000) for n in range(12)},
        "shop": [None if n % 7 == 0 else f"shop {n % 10}" * (n % 30) for n in range(20_000)],
        "target": np.arange(20_000) % 3,
    }
)


class Handed(Scan):
    """A scan with batches of a given size."""

    def __init__(self, rows: pa.Table, size: int) -> None:
        self.schema = rows.schema
        self.rows, self.size = rows, size

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.rows.select(list(columns)).to_batches(max_chunksize=self.size)


def dataset(source: File | None = None) -> Dataset:
    return Dataset(
        name="messages",
        source=source or File("nowhere.csv"),
        record_id="id",
        target="target",
        split=HashSplit(test=0.3),
        models=dict,
    )


def messages(scan: Scan, definition: Dataset | None = None) -> list[tuple[packing.Batch, pa.Buffer]]:
    # A message is valid until the next one is requested.
    return [
        (batch, pa.py_buffer(value.to_pybytes()))
        for batch, value in packing.packed(select(definition or dataset(), scan, Interval()))
    ]


def listed(sent: list[tuple[packing.Batch, pa.Buffer]]) -> list[tuple[str, int, int, str]]:
    return sorted((batch.split, batch.number, batch.rows, batch.blake3) for batch, _ in sent)


@pytest.mark.parametrize("size", [1, 999, 4_096, 20_000])
def test_messages_do_not_depend_on_the_sources_batches(size: int) -> None:
    rows = ROWS.slice(0, 3_000) if size == 1 else ROWS
    assert listed(messages(Handed(rows, size))) == listed(messages(Whole(rows)))


def test_rows_out_of_order_are_published_in_order() -> None:
    shuffled = ROWS.take(np.random.default_rng(0).permutation(ROWS.num_rows))
    assert listed(messages(Handed(shuffled, 700))) == listed(messages(Whole(ROWS)))


def test_messages_assembled_in_any_order_are_the_rows() -> None:
    sent = messages(Whole(ROWS))
    assert all(value.size <= packing.MESSAGE_BYTES for _, value in sent)
    splits: tuple[Role, ...] = ("train", "test")
    found = []
    for split in splits:
        listed_ = [Message(0, 0, split, b.number, b.rows, blake3=b.blake3) for b, _ in sent if b.split == split]
        parts = Assembly(listed_, [Column(field.name, str(field.type)) for field in ROWS.schema])
        for batch, value in reversed(sent):
            if batch.split == split:
                parts.put(batch.number, pa.ipc.open_stream(value).read_next_batch())
        found.append(parts.table())
    assert pa.concat_tables(found).sort_by("id").combine_chunks().equals(ROWS.combine_chunks())


@pytest.mark.parametrize("some_null", [False, True])
@pytest.mark.parametrize("test", [0.02, 0.3])
def test_columns_of_fixed_width_make_the_messages_that_pyarrow_makes(some_null: bool, test: float) -> None:
    rows = 40_000
    times = pa.array(np.arange(rows) * 1_000, pa.timestamp("us", tz="UTC"))
    small = pa.array((np.arange(rows) % 7).astype(np.int8), mask=np.arange(rows) == 30_000 if some_null else None)
    columns = {"x": np.sqrt(np.arange(rows)).astype(np.float32), "at": times, "small": small}
    table = pa.table({"id": np.arange(rows), **columns, "target": np.arange(rows) % 3})
    definition = replace(dataset(), split=HashSplit(test=test))
    sent = messages(Handed(table, 16_384), definition)
    splits: tuple[Role, ...] = ("train", "test")
    for split in splits:
        values = [value for batch, value in sent if batch.split == split]
        found = pa.Table.from_batches(pa.ipc.open_stream(value).read_next_batch() for value in values)
        of_the_split = table.filter(pa.compute.is_in(table["id"], found["id"].combine_chunks())).combine_chunks()
        assert found.combine_chunks().equals(of_the_split)
        size = packing.rows_of_a_message(table.schema)
        pieces = [of_the_split.slice(start, size).to_batches()[0] for start in range(0, len(of_the_split), size)]
        assert [value.to_pybytes() for value in values] == [packing.stream(packing._clean(piece)) for piece in pieces]


def test_a_message_is_valid_until_the_next_is_requested() -> None:
    table = pa.concat_tables([ROWS.drop(["shop", "id"])] * 12).append_column("id", pa.array(range(12 * len(ROWS))))
    kept: list[str] = []
    for batch, value in packing.packed(select(dataset(), Whole(table), Interval())):
        time.sleep(0.01)
        kept.append(batch.blake3)
        assert blake3(value).hexdigest() == batch.blake3
    assert len(set(kept)) == len(kept) > packing.PACKED_AHEAD


@pytest.mark.parametrize("alike", [True, False])
def test_messages_of_one_layout_are_assembled_without_decoding(alike: bool) -> None:
    table = pa.concat_tables([ROWS.drop(["shop", "id"])] * 2).append_column("id", pa.array(range(2 * len(ROWS))))
    if not alike:
        # Of another width.
        table = table.set_column(0, "x0", table["x0"].cast(pa.float32()))
    sent = [(batch, value.to_pybytes()) for batch, value in messages(Whole(table)) if batch.split == "train"]
    placed = [Message(0, 0, "train", batch.number, batch.rows, blake3=batch.blake3) for batch, _ in sent]
    schema = pa.ipc.open_stream(sent[0][1]).schema
    parts = Assembly(placed, [Column(field.name, str(field.type)) for field in schema])
    decoded = 0
    for batch, value in sent:
        if not parts.put_same_layout(batch.number, value):
            parts.put(batch.number, pa.ipc.open_stream(value).read_next_batch(), value)
            decoded += 1
    # The first, and the last, which has fewer rows.
    assert len(sent) > 2 and decoded == (2 if alike else len(sent))
    found = parts.table()
    assert found.equals(table.filter(pa.compute.is_in(table["id"], found["id"])).select(schema.names).combine_chunks())


def test_a_message_that_differs_in_more_than_numbers_has_another_layout() -> None:
    table = ROWS.select(["x0", "x1"]).slice(0, 1_000).combine_chunks()
    value, longer = (packing.stream(table.slice(0, rows).to_batches()[0]) for rows in (1_000, 999))
    parts = Assembly([Message(0, 0, "train", n, 1_000, "") for n in range(2)], [Column("x0", "double")] * 2)
    parts.put(0, pa.ipc.open_stream(value).read_next_batch(), value)
    assert parts.put_same_layout(1, value)
    other = packing.stream(table.rename_columns(["x0", "x2"]).to_batches()[0])
    null = packing.stream(pa.record_batch({"x0": [None, *[1.0] * 999], "x1": [1.0] * 1_000}))
    for changed in (longer, other, null, value[:-1], value + b"\0", value[:-4] + b"\1\0\0\0", b""):
        assert not parts.put_same_layout(1, changed)


def test_messages_with_compressed_values_are_all_decoded() -> None:
    table = pa.table({name: np.arange(start, start + 1_000) for start, name in enumerate("ab")})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    value = sink.getvalue().to_pybytes()
    parts = Assembly([Message(0, 0, "train", n, 1_000, "") for n in range(2)], [Column(name, "int64") for name in "ab"])
    for number in range(2):
        assert not parts.put_same_layout(number, value)
        parts.put(number, pa.ipc.open_stream(value).read_next_batch(), value)
    assert parts.table().equals(pa.concat_tables([table, table]).combine_chunks())


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC")),
        *(pa.duration("ms"), pa.bool_(), pa.string(), pa.large_binary(), pa.list_(pa.float64()), pa.null()),
        *(pa.decimal128(9, 2), pa.dictionary(pa.int8(), pa.string()), pa.struct({"float": pa.float64()})),
    ],
    ids=str,
)
def test_the_width_of_a_type_by_its_name(type_: pa.DataType) -> None:
    plain = pa.types.is_primitive(type_) and type_.bit_width in (8, 16, 32, 64) and not pa.types.is_null(type_)
    assert width(str(type_)) == (type_.bit_width // 8 if plain else 0)


def test_a_source_that_changes_while_it_is_read_is_an_error() -> None:
    scan = Handed(ROWS, 1_000)
    chosen = select(dataset(), scan, Interval())
    scan.rows = ROWS.slice(0, 19_000)
    with raises(Code.SOURCE_CHANGED, "20000", "19000"):
        list(packing.packed(chosen))


def test_files_are_scanned_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ROWS.drop(["id", "shop"])
    parquet.write_table(rows, tmp_path / "rows.parquet", row_group_size=3_000)
    csv.write_csv(rows, tmp_path / "rows.csv")
    monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 100_000)
    for name in ("rows.parquet", "rows.csv"):
        file = File(str(tmp_path / name), number="id")
        whole = file.rows(None, None)
        with file.scan(None, None) as scan:
            assert scan.schema.names == whole.column_names
            for columns in (whole.column_names, ["target", "id"], ["id"], ["x1"]):
                batches = list(scan.batches(columns))
                assert len(batches) > 1 or name == "rows.parquet" or columns != whole.column_names
                assert pa.Table.from_batches(batches).combine_chunks().equals(whole.select(columns).combine_chunks())


@pytest.mark.parametrize("in_memory", [True, False])
def test_empty_text_in_a_csv_file_is_missing(in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", 10_000 if in_memory else 0)
    path = tmp_path / "rows.csv"
    path.write_text('name,churned,country\na,yes,NA\n"",,DE\nb,no,\n')
    with File(str(path)).scan(None, None) as scan:
        (batch,) = scan.batches(["name", "churned", "country"])
    assert batch.to_pydict() == {
        "name": ["a", None, "b"],
        "churned": ["yes", None, "no"],
        "country": ["NA", "DE", None],
    }
    assert batch.schema == scan.schema


@pytest.mark.parametrize(("header", "value"), [("row,x", "'row'"), ("x,x", "name x.")])
@pytest.mark.parametrize("in_memory", [True, False])
def test_two_columns_with_one_name_are_an_error(
    header: str, value: str, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", 10_000 if in_memory else 0)
    (tmp_path / "rows.csv").write_text(f"{header}\n1,2\n")
    file = File(str(tmp_path / "rows.csv"), number="row")
    with raises(Code.COLUMN_DUPLICATED, "rows.csv", value), file.scan(None, None):
        pass
