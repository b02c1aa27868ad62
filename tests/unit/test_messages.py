"""What a version's messages hold depends on its rows, and not on how a source hands them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from include.datasets import Dataset, File, HashSplit, sources
from include.datasets.sources import Scan, Whole
from include.errors import UserError
from include.versions import publication
from include.versions.assembly import Assembly
from include.versions.manifest import Interval, Message, Role
from include.versions.selection import select

ROWS = pa.table(
    {
        "id": np.arange(20_000),
        **{f"x{n}": np.random.default_rng(n).random(20_000) for n in range(12)},
        "shop": [None if n % 7 == 0 else f"shop {n % 10}" * (n % 30) for n in range(20_000)],
        "target": np.arange(20_000) % 3,
    }
)


class Handed(Scan):
    """Rows handed out so many at a time."""

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


def messages(scan: Scan) -> list[tuple[publication.Batch, pa.Buffer]]:
    return list(publication.encoded(select(dataset(), scan, Interval())))


def listed(sent: list[tuple[publication.Batch, pa.Buffer]]) -> list[tuple[str, int, int, str]]:
    return sorted((batch.split, batch.number, batch.rows, batch.sha256) for batch, _ in sent)


@pytest.mark.parametrize("size", [1, 999, 4_096, 20_000])
def test_messages_do_not_depend_on_the_sources_batches(size: int) -> None:
    rows = ROWS.slice(0, 3_000) if size == 1 else ROWS
    assert listed(messages(Handed(rows, size))) == listed(messages(Whole(rows)))


def test_rows_out_of_order_are_published_in_order() -> None:
    shuffled = ROWS.take(np.random.default_rng(0).permutation(ROWS.num_rows))
    assert listed(messages(Handed(shuffled, 700))) == listed(messages(Whole(ROWS)))


def test_messages_put_together_in_any_order_are_the_rows() -> None:
    sent = messages(Whole(ROWS))
    assert all(value.size <= publication.MESSAGE_BYTES for _, value in sent)
    splits: tuple[Role, ...] = ("train", "test")
    found = []
    for split in splits:
        parts = Assembly([Message(0, 0, split, b.number, b.rows, b.sha256) for b, _ in sent if b.split == split])
        for batch, value in reversed(sent):
            if batch.split == split:
                parts.put(batch.number, pa.ipc.open_stream(value).read_next_batch())
        found.append(parts.table())
    assert pa.concat_tables(found).sort_by("id").combine_chunks().equals(ROWS.combine_chunks())


def test_a_source_that_changes_while_it_is_read_is_named() -> None:
    scan = Handed(ROWS, 1_000)
    chosen = select(dataset(), scan, Interval())
    scan.rows = ROWS.slice(0, 19_000)
    with pytest.raises(UserError, match="had 20000 rows and now has 19000: it changes while it is read"):
        list(publication.encoded(chosen))


def test_files_are_scanned_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ROWS.drop(["id", "shop"])
    parquet.write_table(rows, tmp_path / "rows.parquet", row_group_size=3_000)
    csv.write_csv(rows, tmp_path / "rows.csv")
    monkeypatch.setattr(sources, "CSV_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(sources, "CSV_BLOCK_BYTES", 100_000)
    for name in ("rows.parquet", "rows.csv"):
        file = File(str(tmp_path / name), number="id")
        whole = file.rows(None, None)
        with file.scan(None, None) as scan:
            assert scan.schema.names == whole.column_names
            for columns in (whole.column_names, ["target", "id"], ["id"], ["x1"]):
                batches = list(scan.batches(columns))
                assert len(batches) > 1 or name == "rows.parquet" or columns != whole.column_names
                assert pa.Table.from_batches(batches).combine_chunks().equals(whole.select(columns).combine_chunks())
