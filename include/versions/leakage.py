"""Leakage: proof that no record of a version both trains and tests, and that its rows lie where its split says."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from include.versions.manifest import Manifest, Role

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

NAMED = 5
"""So many of the ids that repeat are named."""


class Leaking(Exception):
    """What is wrong with a version's rows; the reader turns it into a refusal.

    Attributes:
        reason: ``repeated`` (ids occur more than once), ``leaking`` (rows lie on the wrong side of the split) or
            ``altered`` (targets are not what the manifest says of them).
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


@dataclass(frozen=True)
class Repeats:
    """Records with the same features: no error, but a model can know the answer by heart.

    Attributes:
        train: Training records whose features another training record before them has.
        test: Test records whose features another test record before them has.
        shared: Test records whose features a training record has.
    """

    train: int
    test: int
    shared: int


class Watch:
    """Looks at every batch of a version, in any order and in any thread, and then knows whether its split holds.

    It keeps eight bytes for each record, and nothing else: a key of its id.
    """

    def __init__(self, manifest: Manifest) -> None:
        import numpy as np

        self._manifest = manifest
        self._keys = np.empty(sum(manifest.rows.values()), np.uint64)
        self._of = {"train": self._keys[: manifest.rows["train"]], "test": self._keys[manifest.rows["train"] :]}
        self._last_trained: Any = None
        self._first_tested: Any = None
        self._comparing = threading.Lock()

    def see(self, split: Role, start: int, batch: pa.RecordBatch) -> None:
        """Takes in a batch, of which the first row has the number ``start`` in its split.

        Raises:
            Leaking: A row has no id, lies on the wrong side, or has a target that the manifest does not allow.
        """
        ids = batch[self._manifest.record_id]
        if ids.null_count:
            raise Leaking("repeated", f"{ids.null_count} or more records have no {self._manifest.record_id}.")
        self._of[split][start : start + len(ids)] = keys(ids)
        self._see_target(batch[self._manifest.target])
        self._see_side(split, batch)

    def doubtful(self) -> NDArray[np.uint64]:
        """Keys of ids that seem to occur more than once, ascending; to be called when all batches were seen.

        Two ids can have the same key, so compare the ids themselves, see ``repeated``.

        Raises:
            Leaking: A training record is not older than every test record, where the split is one by time.
        """
        import numpy as np

        last, first = self._last_trained, self._first_tested
        if last is not None and first is not None and not last < first:
            raise Leaking(
                "leaking",
                f"by its split all training records lie before all test records in {self._manifest.split['column']}, "
                f"but training goes to {last} and testing begins at {first}.",
            )
        if self._all_differ():
            return self._keys[:0]
        self._keys.sort()
        return np.unique(self._keys[1:][self._keys[1:] == self._keys[:-1]])

    def _all_differ(self) -> bool:
        """Whether that is plain without sorting: each split's keys ascend, and no record can be in both splits."""
        train, test = self._of["train"], self._of["test"]
        if not all(bool((part[1:] > part[:-1]).all()) for part in (train, test)):
            return False
        if not len(train) or not len(test) or train[-1] < test[0] or test[-1] < train[0]:
            return True
        # Every row was seen to be on the side that the hash of its id has.
        rule = self._manifest.split
        return rule.get("kind") == "hash" and rule.get("column") == self._manifest.record_id and _is_known(rule)

    def _see_target(self, target: pa.Array) -> None:
        import pyarrow.compute as pc
        import pyarrow.types as types

        name, kind = self._manifest.target, self._manifest.kind
        if types.is_dictionary(target.type):
            target = target.cast(target.type.value_type)
        known: frozenset[Any] | None = None
        if kind == "classification":
            known = _classes(self._manifest, target.type)
        elif not (types.is_integer(target.type) or types.is_floating(target.type) or types.is_decimal(target.type)):
            raise Leaking("altered", f"its manifest says regression, and the target {name} is {target.type}.")
        missing = target.null_count
        if types.is_floating(target.type):
            missing += pc.sum(pc.invert(pc.is_finite(target))).as_py() or 0
        if missing:
            raise Leaking("altered", f"{missing} or more records have no {name}, or one that is not finite.")
        if known is not None and (others := set(pc.unique(target).to_pylist()) - known):
            other = min(others, key=repr)
            listed = _listed(self._manifest.classes)
            raise Leaking("altered", f"the {name} {other!r} is not among the manifest's classes, {listed}.")

    def _see_side(self, split: Role, batch: pa.RecordBatch) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        rule = self._manifest.split
        column = rule.get("column")
        if column not in batch.schema.names or rule.get("kind") not in ("time", "hash", "group"):
            return
        if nulls := batch[column].null_count:
            raise Leaking("leaking", f"{nulls} or more {split} records have no {column}, which decides their side.")
        if rule.get("kind") == "time":
            try:
                found = pc.min_max(batch[column]).as_py()
            except pa.ArrowNotImplementedError:
                raise Leaking("leaking", f"its split is by time, and {column} is {batch[column].type}.") from None
            with self._comparing:
                last, first = self._last_trained, self._first_tested
                if split == "train" and found["max"] is not None:
                    self._last_trained = found["max"] if last is None else max(last, found["max"])
                elif split == "test" and found["min"] is not None:
                    self._first_tested = found["min"] if first is None else min(first, found["min"])
        elif rule.get("kind") in ("hash", "group") and (wrong := _misplaced(rule, split, batch[column])):
            raise Leaking(
                "leaking",
                f"{wrong} or more {split} records belong to the other split by its rule, a hash of {column}.",
            )


def keys(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """For each id of a column without nulls eight bytes: numbers and times are their own, others have a hash."""
    import numpy as np

    from include.datasets import hashing

    values = hashing.integers(ids)
    return hashing.hash64(ids) if values is None else values.view(np.uint64)


def _classes(manifest: Manifest, type_: pa.DataType) -> frozenset[Any]:
    """The manifest's classes, if they are values of the target's type.

    No array of pyarrow is made of them: that would import pandas, which takes 40 MB.

    Raises:
        Leaking: They are of another type, or not in ascending order.
    """
    listed: list[Any] = list(manifest.classes)
    if listed and all(_is_of(name, type_) for name in listed) and all(a < b for a, b in pairwise(listed)):
        return frozenset(listed)
    raise Leaking(
        "altered", f"the manifest's classes, {_listed(listed)}, are no ascending values of {type_}, the target's type."
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
    return ", ".join(shown[:NAMED]) + (f" and {len(shown) - NAMED} more" if len(shown) > NAMED else "") or "none"


def repeated(manifest: Manifest, doubted: NDArray[np.uint64], batches: Iterator[tuple[Role, pa.RecordBatch]]) -> None:
    """Looks at the ids themselves: those of doubtful keys that do occur more than once.

    Args:
        doubted: What ``Watch.doubtful`` found.
        batches: The version once more.

    Raises:
        Leaking: An id occurs more than once.
    """
    import numpy as np

    found: dict[Any, list[Role]] = {}
    for split, batch in batches:
        ids = batch[manifest.record_id]
        for row in np.flatnonzero(np.isin(keys(ids), doubted)).tolist():
            found.setdefault(ids[row].as_py(), []).append(split)
    twice = {value: splits for value, splits in found.items() if len(splits) > 1}
    if not twice:
        return
    both = sum(len(set(splits)) > 1 for splits in twice.values())
    named = ", ".join(
        f"{value} ({len(splits)} times, in {' and '.join(sorted(set(splits), reverse=True))})"
        for value, splits in sorted(twice.items(), key=lambda entry: str(entry[0]))[:NAMED]
    )
    more = f" and {len(twice) - NAMED} more" if len(twice) > NAMED else ""
    raise Leaking(
        "repeated",
        f"{len(twice)} values of {manifest.record_id} occur more than once, {both} of them in both splits: "
        f"{named}{more}.",
    )


def repeats(train: Iterable[pa.RecordBatch], test: Iterable[pa.RecordBatch], features: list[str]) -> Repeats:
    """Counts the records with the same features, by a 64-bit hash of each row's features."""
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
    """How many values of a batch lie on the wrong side; none where the rule is not one that we know."""
    import numpy as np

    from include.datasets.hashing import hash64

    if column.null_count or not _is_known(rule):
        return 0
    tests = hash64(column, rule["salt"], rule["hash"]) < np.uint64(int(rule["test"] * 2**64))
    return int(np.count_nonzero(tests != (split == "test")))


def _is_known(rule: dict[str, Any]) -> bool:
    """Whether a rule by hash is one that can be followed here."""
    from include.datasets.hashing import RULES

    return rule.get("hash") in RULES and isinstance(rule.get("salt"), str) and isinstance(rule.get("test"), float)
