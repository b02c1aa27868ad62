"""Rows of doubles in a Parquet file, for the benchmarks of publishing, reading and training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = 30
_BATCH = 100_000


def write(path: Path, rows: int, seed: int = 0) -> Path:
    """Writes rows of an ``id``, 30 features and a ``target`` of two classes, in pieces, unless the file exists.

    The target is the sign of a noisy sum of the features with falling weights; a linear model reaches about 0.85.
    """
    from pyarrow import parquet

    if path.exists():
        return path
    writer, written = None, path.with_suffix(".part")
    for start in range(0, rows, _BATCH):
        piece = _piece(start, min(_BATCH, rows - start), seed)
        writer = writer or parquet.ParquetWriter(written, piece.schema, compression="none", use_dictionary=False)
        writer.write_table(piece)
    assert writer is not None
    writer.close()
    return written.rename(path)


def _piece(start: int, rows: int, seed: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng([seed, start])
    features = random.standard_normal((COLUMNS, rows))
    weights = 0.9 ** np.arange(COLUMNS)
    target = weights @ features + random.standard_normal(rows) > 0
    columns = {f"x{number:02}": feature for number, feature in enumerate(features)}
    return pa.table({"id": np.arange(start, start + rows), **columns, "target": target.astype(np.int64)})
