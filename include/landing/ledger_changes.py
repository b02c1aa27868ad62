"""Changes of the ledger by a replay: how the dispositions of a range's records differ from those before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from include.landing.disposition import Disposition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from include.landing.batch import PreparedBatch

# The code of a tombstone, after those of the dispositions.
_SKIPPED = len(Disposition)
_LANDED, _FILTERED = (list(Disposition).index(each) for each in (Disposition.LANDED, Disposition.FILTERED))
Counts = Mapping[Disposition, int]
"""Numbers of records by their disposition."""


class ByClaim(TypedDict):
    """The ledger entries that change, by their epochs, and the change of each count."""

    epochs: list[int]
    landed: list[int]
    dead_letters: list[int]
    quarantined: list[int]
    filtered: list[int]
    skipped: list[int]


@dataclass(frozen=True)
class Claim:
    """A ledger entry of a partition: its first offset, its epoch, and how many of its records were filtered."""

    first: int
    epoch: int
    filtered: int


class LedgerChanges:
    """How the dispositions of a range's records change.

    Args:
        kept: The dispositions of the offsets that were dead letters or quarantined.
        rows: The offsets of the rows that were deleted; None if no record can have been filtered.
        claims: The partition's ledger entries.
    """

    def __init__(
        self,
        prepared: PreparedBatch,
        kept: Mapping[int, str],
        rows: Collection[int] | None,
        claims: Sequence[Claim],
    ) -> None:
        classified = prepared.classified
        codes = {disposition.value: code for code, disposition in enumerate(Disposition)}
        offsets = classified.offsets
        self._epochs = [claim.epoch for claim in claims]
        entries = np.searchsorted([claim.first for claim in claims], offsets, side="right") - 1
        # A tombstone was skipped before, unless it was a dead letter because its key could not be decoded. So was a
        # record that is skipped for what it is.
        is_skipped = (classified.codes == _SKIPPED).tolist()
        others = [
            _SKIPPED if value is None or skipped else _LANDED
            for value, skipped in zip(classified.values, is_skipped, strict=True)
        ]
        found = (codes[kept[o]] if o in kept else other for o, other in zip(offsets.tolist(), others, strict=True))
        before = np.fromiter(found, np.int64, len(offsets))
        if rows is not None:
            _mark_filtered(before, entries, np.isin(offsets, np.fromiter(rows, np.int64, len(rows))), claims)
        self._before = self._table(entries, before)
        self._after = self._table(entries, classified.codes.astype(np.int64))

    def before(self) -> Counts:
        return dict(zip(Disposition, self._before.sum(axis=0).tolist(), strict=False))

    def after(self) -> Counts:
        return dict(zip(Disposition, self._after.sum(axis=0).tolist(), strict=False))

    def more_skipped(self) -> int:
        """How many more tombstones are skipped than before, because they were dead letters."""
        return int((self._after - self._before)[:, _SKIPPED].sum())

    def by_claim(self) -> ByClaim:
        """The entries that change, by their epochs, and the change of each count."""
        more = self._after - self._before
        changed = np.flatnonzero(more.any(axis=1)).tolist()
        landed, dead_letters, quarantined, filtered, skipped = (
            more[changed, code].tolist() for code in range(_SKIPPED + 1)
        )
        return {
            "epochs": [self._epochs[entry] for entry in changed],
            "landed": landed,
            "dead_letters": dead_letters,
            "quarantined": quarantined,
            "filtered": filtered,
            "skipped": skipped,
        }

    def _table(self, entries: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many records of each ledger entry have each disposition or are skipped, int64[entries, dispositions]."""
        kinds = _SKIPPED + 1
        counted = np.bincount(entries * kinds + codes, minlength=len(self._epochs) * kinds)
        return counted.reshape(len(self._epochs), kinds)


def _mark_filtered(
    codes: NDArray[np.int64], entries: NDArray[np.int64], has_row: NDArray[np.bool_], claims: Sequence[Claim]
) -> None:
    """Marks the records without a row as filtered, as many as each ledger entry counts.

    The ledger counts the others as landed: retention has dropped their rows.
    """
    without = (codes == _LANDED) & ~has_row
    for entry in np.unique(entries[without]).tolist():
        mine = np.flatnonzero(without & (entries == entry))
        codes[mine[: claims[entry].filtered]] = _FILTERED
