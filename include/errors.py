"""Errors that a person can mend: one sentence for what and where, one for the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the code is wrong, and somebody can put it right.

    Args:
        what: What is wrong and where, as one sentence.
        remedy: What to do about it, as one sentence or command; empty when ``what`` already says it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}".strip())
        self.what = what
        self.remedy = remedy


class LastingError(UserError):
    """Something is wrong that trying again does not mend."""
