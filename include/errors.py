"""Errors that a person can fix: one sentence for what is wrong and where, one for the remedy."""

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


class NonRetryableError(UserError):
    """An error that a retry cannot fix."""
