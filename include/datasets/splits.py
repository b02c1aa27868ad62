"""Splits: which rows of a version test the models. The publisher decides, and every message names its part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from include.definitions import InvalidDefinition
from include.durations import UNITS, duration, duration_field
from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


# The search for a split that divides the rows tries this many salts, and hashes this many values in all.
MAX_SALTS = 50
MAX_SALTED_VALUES = 500_000


class Roles(Protocol):
    """The part of a dataset's definition that a split reads: which column has which role."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def record_id(self) -> str: ...
    @property
    def event_time(self) -> str | None: ...


class Split(ABC):
    """The rule that divides rows into train and test.

    Attributes:
        column: The column that the split reads, if it needs one that no model may learn from.
    """

    column: str | None = None

    @abstractmethod
    def tests(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> NDArray[np.bool_]:
        """For each row, whether it is a test row; ``end`` is the end of the version's interval (UTC)."""

    @abstractmethod
    def rule(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> dict[str, Any]:
        """The rule for the manifest: everything that decides the part of a row, and nothing else."""

    @abstractmethod
    def closest(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> Split | None:
        """The most similar split of this kind with rows in both parts; None if there is none."""


@dataclass(frozen=True)
class TimeSplit(Split):
    """The most recent records test: every training record is older than every test record.

    Attributes:
        test: The time before the end of the version's interval whose records test, such as ``365 days``.
    """

    test: str

    def __post_init__(self) -> None:
        duration_field("split", self.test, 'Write TimeSplit(test="365 days").')

    def tests(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> NDArray[np.bool_]:
        import numpy as np

        return moments(rows, dataset) >= np.datetime64(self._boundary(rows, dataset, end), "us")

    def rule(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> dict[str, Any]:
        return {
            "kind": "time",
            "column": dataset.event_time,
            "boundary": self._boundary(rows, dataset, end).isoformat(),
        }

    def closest(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> Split | None:
        happened = moments(rows, dataset)
        until = _moment(end) if end is not None else happened.max() + 1
        # Both parts have rows if the duration is at least the first of these and less than the second.
        shortest, longest = (int((until - moment).astype("int64")) for moment in (happened.max(), happened.min()))
        wanted = duration(self.test) // timedelta(microseconds=1)
        for unit in reversed(UNITS):
            length = timedelta(**{f"{unit}s": 1}) // timedelta(microseconds=1)
            smallest, largest = max(1, -(-shortest // length)), (longest - 1) // length
            if smallest <= largest:
                count = min(max(round(wanted / length), smallest), largest)
                return TimeSplit(f"{count} {unit}{'s' if count > 1 else ''}")
        return None

    def _boundary(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> datetime:
        if end is None:
            end = moments(rows, dataset).max().item() + timedelta(microseconds=1)
        return end.replace(tzinfo=None) - duration(self.test)


@dataclass(frozen=True)
class HashSplit(Split):
    """A fixed share of the records test, chosen by the hash of their id: a record is in the same part in every version.

    Attributes:
        test: The share, between 0 and 1.
        salt: Another salt draws another sample.
    """

    test: float = 0.2
    salt: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.test, int | float) or not 0 < self.test < 1:
            raise InvalidDefinition(
                "split", f"test={self.test!r} is not a share of the rows.", "Write a number between 0 and 1."
            )

    def tests(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> NDArray[np.bool_]:
        return _drawn(rows, dataset, dataset.record_id, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("hash", dataset.record_id, self.salt, self.test)

    def closest(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> Split | None:
        found = _closest(rows, dataset, dataset.record_id, self.salt, self.test)
        return HashSplit(*found) if found else None


@dataclass(frozen=True)
class GroupSplit(Split):
    """All records of a group (a customer, a patient, a machine) are in the same part, chosen by the group's hash.

    Attributes:
        by: The column that names the group.
        test: The share of groups that test, between 0 and 1.
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

    def tests(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> NDArray[np.bool_]:
        return _drawn(rows, dataset, self.by, self.salt, self.test)

    def rule(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> dict[str, Any]:
        return _hash_rule("group", self.by, self.salt, self.test)

    def closest(self, rows: pa.Table, dataset: Roles, end: datetime | None) -> Split | None:
        found = _closest(rows, dataset, self.by, self.salt, self.test)
        return GroupSplit(self.by, *found) if found else None


def moments(rows: pa.Table, dataset: Roles) -> NDArray[np.datetime64]:
    """The rows' event times as UTC, in microseconds.

    Raises:
        UserError: The column is not one of timestamps or dates, or has nulls.
    """
    import pyarrow as pa
    import pyarrow.types as types

    assert dataset.event_time is not None
    column = rows[dataset.event_time]
    about = f"Dataset {dataset.name!r}, field event_time: the column {dataset.event_time!r}"
    if not (types.is_timestamp(column.type) or types.is_date(column.type)):
        raise NonRetryableError(
            f"{about} is {column.type}, not a timestamp or a date.",
            "Name another column, or convert this one in the source.",
            code=Code.COLUMN_UNUSABLE,
        )
    if column.null_count:
        raise NonRetryableError(
            f"{about} is null in {column.null_count} of {len(column)} rows.",
            "Fill in these values, or leave the rows out in the source.",
            code=Code.VALUES_MISSING,
        )
    # Nanoseconds are cut off.
    micros = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    times: NDArray[np.datetime64] = micros.cast(pa.timestamp("us")).to_numpy()
    return times


def _moment(end: datetime) -> Any:
    import numpy as np

    return np.datetime64(end.replace(tzinfo=None), "us")


def _drawn(rows: pa.Table, dataset: Roles, column: str, salt: str, share: float) -> NDArray[np.bool_]:
    """For each row, whether the hash of its value in a column is below the share.

    Raises:
        NonRetryableError: The column has nulls, or a type that cannot be hashed.
    """
    import pyarrow.types as types

    values = rows[column]
    about = f"Dataset {dataset.name!r}, field split: the column {column!r}"
    if values.null_count:
        raise NonRetryableError(
            f"{about} is null in {values.null_count} of {len(values)} rows.",
            "Fill it in, leave these rows out in the source, or split by another column.",
            code=Code.VALUES_MISSING,
        )
    if types.is_nested(values.type) or types.is_null(values.type):
        raise NonRetryableError(
            f"{about} is {values.type}.", "Split by text, numbers or dates.", code=Code.COLUMN_UNUSABLE
        )
    return _below(values, salt, share)


def _below(values: pa.ChunkedArray, salt: str, share: float) -> NDArray[np.bool_]:
    import numpy as np

    from include.datasets.hashing import hash64

    return hash64(values, salt) < np.uint64(int(share * 2**64))


def _closest(rows: pa.Table, dataset: Roles, column: str, salt: str, share: float) -> tuple[float, str] | None:
    """The share and the salt whose test part is closest to a share of the rows, with rows and classes in both parts.

    Tries salts for the share itself, and for the nearest share that this number of different values can have.
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

    # Limited, so that the error message does not take longer than publishing.
    salts = [salt, *map(str, range(1, max(2, min(MAX_SALTS, MAX_SALTED_VALUES // count))))]
    shares = dict.fromkeys([share, round(min(max(share, 1 / count), 1 - 1 / count), 4)])
    best = min(((one, salt) for one in shares for salt in salts), key=distance)
    return best if distance(best) < np.inf else None


def _hash_rule(kind: str, column: str, salt: str, share: float) -> dict[str, Any]:
    from include.datasets.hashing import RULE

    return {"kind": kind, "column": column, "salt": salt, "test": share, "hash": RULE}
