"""Splits: which rows of a version test the models. The publisher decides it, every batch carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.definitions import Invalid
from include.durations import duration, of_field
from include.errors import LastingError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.datasets.definition import Dataset


class Split(ABC):
    """How rows are divided.

    Attributes:
        column: The column that the split looks at and no model may learn from, when it has one of its own.
    """

    column: str | None = None

    @abstractmethod
    def tests(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> NDArray[np.bool_]:
        """For each row, whether it tests; ``end`` is where the version's interval ends (UTC)."""

    @abstractmethod
    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        """The rule as the manifest states it: what decides where a row goes, and nothing else."""


@dataclass(frozen=True)
class TimeSplit(Split):
    """The last stretch of time tests: training sees nothing that happened after any test record.

    Attributes:
        test: How long the stretch is, such as ``365 days``, counted back from the end of the version's interval.
    """

    test: str

    def __post_init__(self) -> None:
        of_field("split", self.test, 'Write TimeSplit(test="365 days").')

    def tests(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> NDArray[np.bool_]:
        import numpy as np

        return moments(rows, dataset) >= np.datetime64(self._boundary(rows, dataset, end), "us")

    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        return {
            "kind": "time",
            "column": dataset.event_time,
            "boundary": self._boundary(rows, dataset, end).isoformat(),
        }

    def _boundary(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> datetime:
        if end is None:
            end = moments(rows, dataset).max().item() + timedelta(microseconds=1)
        return end.replace(tzinfo=None) - duration(self.test)


@dataclass(frozen=True)
class HashSplit(Split):
    """A fixed share of the records tests, chosen by the hash of their id: a record keeps its side in every version.

    Attributes:
        test: The share, between 0 and 1.
        salt: Another salt draws another sample.
    """

    test: float = 0.2
    salt: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.test, int | float) or not 0 < self.test < 1:
            raise Invalid("split", f"test={self.test!r} is no share of the rows.", "Give a number between 0 and 1.")

    def tests(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> NDArray[np.bool_]:
        return _drawn(rows, dataset.record_id, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("hash", dataset.record_id, self.salt, self.test)


@dataclass(frozen=True)
class GroupSplit(Split):
    """Records of one group (a customer, a patient, a machine) stay together, on a side chosen by the group's hash.

    Attributes:
        by: The column that names the group.
        test: The share of groups that tests, between 0 and 1.
        salt: Another salt draws another sample.
    """

    by: str
    test: float = 0.2
    salt: str = ""

    def __post_init__(self) -> None:
        HashSplit(self.test)

    @property
    def column(self) -> str:  # type: ignore[override]
        return self.by

    def tests(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> NDArray[np.bool_]:
        return _drawn(rows, self.by, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("group", self.by, self.salt, self.test)


def moments(rows: pa.Table, dataset: Dataset) -> NDArray[np.datetime64]:
    """The rows' event times as UTC, in microseconds.

    Raises:
        UserError: The column holds no times, or holds nulls.
    """
    import pyarrow as pa
    import pyarrow.types as types

    assert dataset.event_time is not None
    column = rows[dataset.event_time]
    if not (types.is_timestamp(column.type) or types.is_date(column.type)) or column.null_count:
        raise LastingError(
            f"Dataset {dataset.name!r}: its event_time {dataset.event_time!r} must hold a time in every row, but is "
            f"{column.type} with {column.null_count} nulls.",
            "Name a column of timestamps or dates, and filter out the rows without one.",
        )
    # Nanoseconds are cut off.
    micros = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.timestamp("us")).to_numpy()


def _drawn(rows: pa.Table, column: str, salt: str, share: float) -> NDArray[np.bool_]:
    import numpy as np

    from include.datasets.hashing import hash64

    return hash64(rows[column], salt) < np.uint64(int(share * 2**64))


def _hash_rule(kind: str, column: str, salt: str, share: float) -> dict[str, Any]:
    from include.datasets.hashing import RULE

    return {"kind": kind, "column": column, "salt": salt, "test": share, "hash": RULE}
