"""Refusals: why a version cannot be trained on."""

from __future__ import annotations

from enum import StrEnum

from include.error_codes import Code
from include.errors import NonRetryableError
from include.versions.manifest import Manifest


class Reason(StrEnum):
    """Why a version is refused; stored with the run."""

    TRIMMED = "trimmed"
    """Retention or a user deleted messages."""
    SHORT = "short"
    """Listed messages are missing."""
    ALTERED = "altered"
    """A message, or a row in it, is not what the manifest describes."""
    UNLISTED = "unlisted"
    """A message claims to belong to the version and is not in its list."""
    OPEN = "open"
    """The messages are after a transaction that is still open."""
    REPEATED = "repeated"
    """A record id is missing or occurs more than once."""
    LEAKING = "leaking"
    """Rows are in the wrong part of the split."""


_CODES = {
    Reason.TRIMMED: Code.VERSION_TRIMMED,
    Reason.SHORT: Code.VERSION_SHORT,
    Reason.ALTERED: Code.VERSION_ALTERED,
    Reason.UNLISTED: Code.VERSION_UNLISTED,
    Reason.OPEN: Code.VERSION_OPEN,
    Reason.REPEATED: Code.VERSION_REPEATED,
    Reason.LEAKING: Code.VERSION_LEAKING,
}


class VersionRefused(NonRetryableError):
    """A version cannot be trained on; ``reason`` says why."""

    def __init__(self, manifest: Manifest, reason: Reason, what: str) -> None:
        again = f"Publish its interval again: ./millrace publish {manifest.dataset}."
        super().__init__(
            f"Version {manifest.short} of {manifest.dataset!r} is refused, {reason}: {what}",
            "Train on it again when the transaction has ended." if reason is Reason.OPEN else again,
            code=_CODES[reason],
        )
        self.reason = reason


class InvalidRows(Exception):
    """The rows of a version contradict its manifest. The reader raises it as ``VersionRefused``."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
