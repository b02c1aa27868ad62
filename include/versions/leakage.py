"""Checks a version for leakage: no record both trains and tests, and the split assigns every row to its part."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from include.versions.manifest import Manifest, Role
from include.versions.refusal import InvalidRows, Reason

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

MAX_NAMED = 5
"""A message names at most this many values."""


@dataclass(frozen=True)
class Repeats:
    """The numbers of records with the same features: not an error, but a model may have memorised their targets.

    Attributes:
        train: Training records with the features of an earlier training record.
        test: Test records with the features of an earlier test record.
        shared: Test records with the features of a training record.
    """

    train: int
    test: int
    shared: int


class SplitValidator:
    """Validates the ids, the targets and the split of a version, whose batches come in any order and any thread.

    It stores eight bytes for each record: the key of its id.
    """

    def __init__(self, manifest: Manifest) -> None:
        import numpy as np

        self._manifest = manifest
        self._keys = np.empty(sum(manifest.rows.values()), np.uint64)
        self._split_keys = {"train": self._keys[: manifest.rows["train"]], "test": self._keys[manifest.rows["train"] :]}
        self._last_trained: Any = None
        self._first_tested: Any = None
        self._comparing = threading.Lock()

    def add_batch(self, split: Role, start: int, batch: pa.RecordBatch) -> None:
        """Checks a batch.

        Args:
            split: The part that the batch belongs to.
            start: The number of its first row in this part.

        Raises:
            InvalidRows: A row has no id, is in the wrong part, or has a target that the manifest does not allow.
        """
        ids = batch[self._manifest.record_id]
        if ids.null_count:
            raise InvalidRows(Reason.REPEATED, f"{ids.null_count} or more records have no {self._manifest.record_id}.")
        self._split_keys[split][start : start + len(ids)] = id_keys(ids)
        self._check_target(batch[self._manifest.target])
        self._check_part(split, batch)

    def possible_duplicates(self) -> NDArray[np.uint64]:
        """The keys that occur more than once, ascending; call it after the last batch.

        Two ids can have the same key: ``require_distinct`` compares the ids themselves.

        Raises:
            InvalidRows: The split is by time, and a training record is not older than every test record.
        """
        import numpy as np

        last, first = self._last_trained, self._first_tested
        if last is not None and first is not None and not last < first:
            raise InvalidRows(
                Reason.LEAKING,
                f"its split by {self._manifest.split['column']} puts training records before test records, but the "
                f"last training record is of {last} and the first test record of {first}.",
            )
        if self._all_differ():
            return self._keys[:0]
        self._keys.sort()
        return np.unique(self._keys[1:][self._keys[1:] == self._keys[:-1]])

    def _all_differ(self) -> bool:
        """Whether the keys are known to differ without sorting: they ascend, and no record can be in both parts."""
        train, test = self._split_keys["train"], self._split_keys["test"]
        if not all(bool((part[1:] > part[:-1]).all()) for part in (train, test)):
            return False
        if not len(train) or not len(test) or train[-1] < test[0] or test[-1] < train[0]:
            return True
        # Every row was found in the part that the hash of its id assigns.
        rule = self._manifest.split
        return rule.get("kind") == "hash" and rule.get("column") == self._manifest.record_id and _is_known(rule)

    def _check_target(self, target: pa.Array) -> None:
        import pyarrow.compute as pc
        import pyarrow.types as types

        name, kind = self._manifest.target, self._manifest.kind
        if types.is_dictionary(target.type):
            target = target.cast(target.type.value_type)
        known: frozenset[Any] | None = None
        if kind == "classification":
            known = _classes(self._manifest, target.type)
        elif not (types.is_integer(target.type) or types.is_floating(target.type) or types.is_decimal(target.type)):
            raise InvalidRows(
                Reason.ALTERED, f"its manifest is of a regression, but the target {name} is {target.type}."
            )
        missing = target.null_count
        if types.is_floating(target.type):
            missing += pc.sum(pc.invert(pc.is_finite(target))).as_py() or 0
        if missing:
            raise InvalidRows(Reason.ALTERED, f"{missing} or more records have a {name} that is missing or not finite.")
        if known is not None and (others := set(pc.unique(target).to_pylist()) - known):
            other = min(others, key=repr)
            listed = _listed(self._manifest.classes)
            raise InvalidRows(Reason.ALTERED, f"the {name} {other!r} is not one of the manifest's classes, {listed}.")

    def _check_part(self, split: Role, batch: pa.RecordBatch) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        rule = self._manifest.split
        column = rule.get("column")
        if column not in batch.schema.names or rule.get("kind") not in ("time", "hash", "group"):
            return
        if nulls := batch[column].null_count:
            raise InvalidRows(
                Reason.LEAKING, f"{nulls} or more {split} records have no {column}, which decides their part."
            )
        if rule.get("kind") == "time":
            try:
                found = pc.min_max(batch[column]).as_py()
            except pa.ArrowNotImplementedError:
                raise InvalidRows(
                    Reason.LEAKING, f"its split is by time, but {column} is {batch[column].type}."
                ) from None
            with self._comparing:
                last, first = self._last_trained, self._first_tested
                if split == "train" and found["max"] is not None:
                    self._last_trained = found["max"] if last is None else max(last, found["max"])
                elif split == "test" and found["min"] is not None:
                    self._first_tested = found["min"] if first is None else min(first, found["min"])
        elif rule.get("kind") in ("hash", "group") and (wrong := _misplaced(rule, split, batch[column])):
            raise InvalidRows(
                Reason.LEAKING,
                f"its rule, a hash of {column}, puts {wrong} or more {split} records into the other part.",
            )


def id_keys(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A key of eight bytes for each id of a column without nulls: a number or time itself, otherwise a hash."""
    import numpy as np

    from include.datasets import hashing

    values = hashing.integers(ids)
    return hashing.hash64(ids) if values is None else values.view(np.uint64)


def _classes(manifest: Manifest, type_: pa.DataType) -> frozenset[Any]:
    """The manifest's classes, if they are values of the target's type.

    This avoids pyarrow's arrays, which would import pandas and take 40 MB.

    Raises:
        InvalidRows: They have another type, or are not in ascending order.
    """
    listed: list[Any] = list(manifest.classes)
    if listed and all(_is_of(name, type_) for name in listed) and all(a < b for a, b in pairwise(listed)):
        return frozenset(listed)
    raise InvalidRows(
        Reason.ALTERED,
        f"the manifest's classes, {_listed(listed)}, are not ascending values of the target's type, {type_}.",
    )


def _is_of(name: Any, type_: pa.DataType) -> bool:
    """Whether a class is a value of an Arrow type."""
    import numpy as np
    import pyarrow.types as types

    if types.is_boolean(type_):
        return isinstance(name, bool)
    if isinstance(name, bool):
        return False
    if types.is_integer(type_):
        bounds = np.iinfo(str(type_))
        return isinstance(name, int) and bounds.min <= name <= bounds.max
    if types.is_floating(type_):
        kind = np.dtype(f"f{type_.bit_width // 8}").type
        with np.errstate(over="ignore"):
            return isinstance(name, int | float) and abs(name) < 2**1000 and float(kind(name)) == name
    return isinstance(name, str) and (
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)
    )


def _listed(classes: Iterable[Any]) -> str:
    shown = list(map(repr, classes))
    return (
        ", ".join(shown[:MAX_NAMED]) + (f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else "")
        or "none"
    )


def require_distinct(
    manifest: Manifest, possible: NDArray[np.uint64], batches: Iterator[tuple[Role, pa.RecordBatch]]
) -> None:
    """Compares the ids whose keys occur more than once.

    Args:
        possible: The keys that ``SplitValidator.possible_duplicates`` found.
        batches: All batches of the version, read again.

    Raises:
        InvalidRows: An id occurs more than once.
    """
    import numpy as np

    found: dict[Any, list[Role]] = {}
    for split, batch in batches:
        ids = batch[manifest.record_id]
        for row in np.flatnonzero(np.isin(id_keys(ids), possible)).tolist():
            found.setdefault(ids[row].as_py(), []).append(split)
    repeated = {value: splits for value, splits in found.items() if len(splits) > 1}
    if not repeated:
        return
    both = sum(len(set(splits)) > 1 for splits in repeated.values())
    named = ", ".join(
        f"{value} ({len(splits)} times, in {' and '.join(sorted(set(splits), reverse=True))})"
        for value, splits in sorted(repeated.items(), key=lambda entry: str(entry[0]))[:MAX_NAMED]
    )
    more = f" and {len(repeated) - MAX_NAMED} more" if len(repeated) > MAX_NAMED else ""
    raise InvalidRows(
        Reason.REPEATED,
        f"{len(repeated)} values of {manifest.record_id} occur more than once, {both} of them in both splits: "
        f"{named}{more}.",
    )


def repeats(train: Iterable[pa.RecordBatch], test: Iterable[pa.RecordBatch], features: list[str]) -> Repeats:
    """Counts records with the same features, by a 64-bit hash of each row's features."""
    import numpy as np

    trained, tested = _hashes(train, features), _hashes(test, features)
    known, asked = np.unique(trained), np.unique(tested)
    shared = np.isin(tested, known)
    return Repeats(len(trained) - len(known), len(tested) - len(asked), int(np.count_nonzero(shared)))


def _hashes(batches: Iterable[pa.RecordBatch], features: list[str]) -> NDArray[np.uint64]:
    import numpy as np
    from pandas.util import hash_pandas_object

    frames = (batch.select(features).to_pandas() for batch in batches)
    return np.concatenate([hash_pandas_object(frame, index=False).to_numpy() for frame in frames])


def _misplaced(rule: dict[str, Any], split: Role, column: pa.Array) -> int:
    """The number of values of a batch that are in the wrong part; 0 if the rule is of another kind."""
    import numpy as np

    from include.datasets.hashing import hash64

    if column.null_count or not _is_known(rule):
        return 0
    tests = hash64(column, rule["salt"], rule["hash"]) < np.uint64(int(rule["test"] * 2**64))
    return int(np.count_nonzero(tests != (split == "test")))


def _is_known(rule: dict[str, Any]) -> bool:
    """Whether a rule by hash can be evaluated here."""
    from include.datasets.hashing import RULES

    return rule.get("hash") in RULES and isinstance(rule.get("salt"), str) and isinstance(rule.get("test"), float)
