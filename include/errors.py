"""Errors that a user can fix: one sentence for what is wrong and where, one for the remedy, and a stable code."""

from __future__ import annotations

from typing import Self

from include.error_codes import Code


class UserError(Exception):
    """Something outside the code is wrong, and a user can fix it.

    Args:
        what: What is wrong and where, as one sentence.
        remedy: What to do about it, as one sentence or command; empty when ``what`` already says it.
        code: The kind of error. ``str()`` of the error ends with it, in brackets.
    """

    def __init__(self, what: str, remedy: str = "", *, code: Code) -> None:
        super().__init__(_sentence(what, remedy, code))
        self.what = what
        self.remedy = remedy
        self.code = code

    def with_remedy(self, remedy: str) -> Self:
        """The same error with a remedy that only the caller knows."""
        self.remedy = remedy
        self.args = (_sentence(self.what, remedy, self.code),)
        return self

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the constructor with the whole sentence, which subclasses do not take.
        return _restored, (type(self), self.args, self.__dict__)


class NonRetryableError(UserError):
    """An error that a retry cannot fix."""


def _restored(kind: type[UserError], args: tuple[object, ...], state: dict[str, object]) -> UserError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def _sentence(what: str, remedy: str, code: Code) -> str:
    return f"{what} {remedy}".strip() + f" [{code}]"
