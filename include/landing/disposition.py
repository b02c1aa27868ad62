"""What becomes of a record with a value."""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """The disposition of a record; tombstones and offsets without a record have none of these."""

    LANDED = "landed"
    DEAD_LETTER = "dead letter"
    QUARANTINED = "quarantined"

    @property
    def column(self) -> str:
        """The column of the ledger that counts it."""
        return "dead_letters" if self is Disposition.DEAD_LETTER else self.value
