"""What becomes of a record with a value."""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """The disposition of a record; tombstones and offsets without a record have none of these."""

    LANDED = "landed"
    DEAD_LETTER = "dead letter"
    QUARANTINED = "quarantined"
    FILTERED = "filtered"

    @property
    def column(self) -> str:
        """The column of the ledger that counts it."""
        return "dead_letters" if self is Disposition.DEAD_LETTER else self.value


STORED = (Disposition.LANDED, Disposition.DEAD_LETTER, Disposition.QUARANTINED)
"""The dispositions of records that are a row or a dead letter; the ledger alone counts those that are filtered."""
