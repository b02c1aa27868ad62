"""Every error that a user can meet has a stable code, and docs/errors.md lists all codes."""

from __future__ import annotations

import pickle
import re

import pytest

from include import error_codes
from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.project import ROOT
from include.versions.row_choice import NothingToPublish

SOURCES = [
    path for folder in ("include", "embedded", "cli", "dags", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
TEXT = {path: path.read_text() for path in SOURCES if path.name != "error_codes.py"}


def test_an_error_ends_with_its_code() -> None:
    error = UserError("The disk is full.", "Free some space.", code=Code.INVALID_DEFINITION)
    assert str(error) == "The disk is full. Free some space. [invalid-definition]"
    assert str(UserError("The disk is full.", code=Code.INVALID_DEFINITION)) == "The disk is full. [invalid-definition]"


def test_a_later_remedy_keeps_the_code() -> None:
    error = NonRetryableError("The disk is full.", code=Code.INVALID_DEFINITION).with_remedy("Free some space.")
    assert str(error) == "The disk is full. Free some space. [invalid-definition]"


@pytest.mark.parametrize(
    "error", [InvalidDefinition("name", "'A b' is not a valid name.", "Use letters."), NothingToPublish("No rows.")]
)
def test_an_error_crosses_a_process(error: UserError) -> None:
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is type(error)
    assert (str(restored), restored.__dict__) == (str(error), error.__dict__)


@pytest.mark.parametrize("code", Code)
def test_a_code_is_usable(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", code), "a code is two or more lower-case words"
    assert code.name == code.replace("-", "_").upper()
    for sentence in (code.meaning, code.remedy):
        assert sentence[0].isupper() or sentence[0] == "`", sentence
        assert sentence.endswith("."), sentence
    assert pickle.loads(pickle.dumps(code)) is code


@pytest.mark.parametrize("code", Code)
def test_every_code_is_raised_somewhere(code: Code) -> None:
    in_python = any(re.search(rf"\bCode\.{code.name}\b", text) for text in TEXT.values())
    assert in_python or f"[{code}]" in (ROOT / "millrace").read_text()


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs/errors.md").read_text() == error_codes.markdown(), (
        "write it again: ./millrace python -m include.error_codes > docs/errors.md"
    )
