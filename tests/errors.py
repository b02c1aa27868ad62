"""What tests say about errors: they name the code and the values, not the sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from include.error_codes import Code
from include.errors import UserError


class Caught:
    """The error that a block raised; empty until the block has ended."""

    error: UserError

    def __str__(self) -> str:
        return str(self.error)


@contextmanager
def raises(code: Code, *values: object, kind: type[UserError] = UserError) -> Iterator[Caught]:
    """Expects an error with this code, whose message names every one of these values."""
    caught = Caught()
    with pytest.raises(kind) as info:
        yield caught
    caught.error = info.value
    assert caught.error.code is code, f"expected [{code}], got: {caught.error}"
    for value in values:
        assert str(value) in str(caught.error), f"{value} is not named in: {caught.error}"
