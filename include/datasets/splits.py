"""Splits: which rows of a version test the models. The publisher decides it, every batch carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.definitions import InvalidDefinition
from include.durations import UNITS, duration, of_field
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.datasets.definition import Dataset


# How many salts are tried for a split that divides the rows, and for how many values in all.
SALTS = 50
SALTED_VALUES = 500_000


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

    @abstractmethod
    def closest(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> Split | None:
        """The split most like this one that leaves rows on both sides; None where no split of its kind does."""


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

    def closest(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> Split | None:
        happened = moments(rows, dataset)
        until = _moment(end) if end is not None else happened.max() + 1
        # As long as this, and shorter than that, it leaves rows on both sides.
        least, most = (int((until - moment).astype("int64")) for moment in (happened.max(), happened.min()))
        wanted = duration(self.test) // timedelta(microseconds=1)
        for unit in reversed(UNITS):
            length = timedelta(**{f"{unit}s": 1}) // timedelta(microseconds=1)
            fewest, largest = max(1, -(-least // length)), (most - 1) // length
            if fewest <= largest:
                count = min(max(round(wanted / length), fewest), largest)
                return TimeSplit(f"{count} {unit}{'s' if count > 1 else ''}")
        return None

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
            raise InvalidDefinition(
                "split", f"test={self.test!r} is no share of the rows.", "Give a number between 0 and 1."
            )

    def tests(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> NDArray[np.bool_]:
        return _drawn(rows, dataset, dataset.record_id, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("hash", dataset.record_id, self.salt, self.test)

    def closest(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> Split | None:
        found = _closest(rows, dataset, dataset.record_id, self.salt, self.test)
        return HashSplit(*found) if found else None


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
        return _drawn(rows, dataset, self.by, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("group", self.by, self.salt, self.test)

    def closest(self, rows: pa.Table, dataset: Dataset, end: datetime | None) -> Split | None:
        found = _closest(rows, dataset, self.by, self.salt, self.test)
        return GroupSplit(self.by, *found) if found else None


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
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: its event_time {dataset.event_time!r} must hold a time in every row, but is "
            f"{column.type} with {column.null_count} nulls.",
            "Name a column of timestamps or dates, and filter out the rows without one.",
        )
    # Nanoseconds are cut off.
    micros = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    return micros.cast(pa.timestamp("us")).to_numpy()


def _moment(end: datetime) -> Any:
    import numpy as np

    return np.datetime64(end.replace(tzinfo=None), "us")


def _drawn(rows: pa.Table, dataset: Dataset, column: str, salt: str, share: float) -> NDArray[np.bool_]:
    """For each row whether the hash of its value in a column lies in the share.

    Raises:
        NonRetryableError: The column has empty cells, or values of a type that has no hash.
    """
    import pyarrow.types as types

    values = rows[column]
    about = f"Dataset {dataset.name!r}, field split"
    if values.null_count:
        raise NonRetryableError(
            f"{about}: {values.null_count} of {len(values)} rows have no {column!r}, which decides their side.",
            "Fill it in, leave these rows out in the source, or split by another column.",
        )
    if types.is_nested(values.type) or types.is_null(values.type):
        raise NonRetryableError(f"{about}: the column {column!r} is {values.type}.", "Split by text, numbers or dates.")
    return _below(values, salt, share)


def _below(values: pa.ChunkedArray, salt: str, share: float) -> NDArray[np.bool_]:
    import numpy as np

    from include.datasets.hashing import hash64

    return hash64(values, salt) < np.uint64(int(share * 2**64))


def _closest(rows: pa.Table, dataset: Dataset, column: str, salt: str, share: float) -> tuple[float, str] | None:
    """The share and the salt that come closest to a share of the rows, with rows on both sides and classes to learn.

    Salts are tried for the share itself, and for the one nearest to it that so few values can have.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = rows[column].combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    count, places = len(encoded.dictionary), encoded.indices.to_numpy()
    if count < 2:
        return None

    def distance(candidate: tuple[float, str]) -> float:
        tests = _below(encoded.dictionary, candidate[1], candidate[0])[places]
        if tests.all() or not tests.any():
            return np.inf
        if dataset.kind == "classification":
            target = rows[dataset.target]
            if pc.count_distinct(target.filter(pa.array(~tests)), mode="only_valid").as_py() < 2:
                return np.inf
        return float(abs(tests.mean() - share))

    # So that a message does not take longer than the work.
    salts = [salt, *map(str, range(1, max(2, min(SALTS, SALTED_VALUES // count))))]
    shares = dict.fromkeys([share, round(min(max(share, 1 / count), 1 - 1 / count), 4)])
    best = min(((one, salt) for one in shares for salt in salts), key=distance)
    return best if distance(best) < np.inf else None


def _hash_rule(kind: str, column: str, salt: str, share: float) -> dict[str, Any]:
    from include.datasets.hashing import RULE

    return {"kind": kind, "column": column, "salt": salt, "test": share, "hash": RULE}
