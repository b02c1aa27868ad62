"""The codes of all errors that a user can meet, with what each means and what to do.

A code is stable: programs, alerts and tests may rely on it, sentences may change. ``python -m include.error_codes >
docs/errors.md`` writes the reference; a test keeps it current.
"""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Code(StrEnum):
    """One kind of error: its value is the code as it is shown.

    Attributes:
        meaning: What is wrong, in one or two sentences, without the values of a single case.
        remedy: What to do about it.
    """

    meaning: str
    remedy: str

    def __new__(cls, code: str, meaning: str, remedy: str) -> Code:
        """A member from its three strings."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.remedy = meaning, remedy
        return member

    # Definitions
    UN_CODED = "un-coded", "The error has no code yet.", "Read its message."
    INVALID_DEFINITION = (
        "invalid-definition",
        "A field of a definition has a value that it cannot have.",
        "Correct the field that the message names, then run `./millrace check`.",
    )
    UNKNOWN_DEFINITION = (
        "unknown-definition",
        "No file of `include/datasets` or `include/streams` defines the dataset or stream of this name.",
        "Correct the name, or write the definition with `./millrace new`.",
    )
    BROKEN_DEFINITION = (
        "broken-definition",
        "A definition file cannot be imported: it has a syntax error, or its code raises an exception.",
        "Fix the line that the message names, or move the file out of the folder.",
    )

    # Sources and files

    # Versions: publishing and reading

    # Kafka and connections

    # Streams, landing and replay

    # Training

    # Models, champions and promotion

    # The platform and the command line


_HEAD = """# Errors

Every error of Millrace ends with a code in brackets:

    millrace: The file data/orders.csv does not exist. Put it there, or correct the path. [file-not-found]

The sentence names the values of your case; this page says what the code means in general. Codes are stable, sentences
are not: match on the code in scripts and alerts. In Airflow the code is in the log of the task that failed.

This page is written by `./millrace python -m include.error_codes`.
"""


def markdown() -> str:
    """The page: every code in alphabetical order, with its meaning and its remedy."""
    parts = [f"## {code}\n\n{code.meaning}\n\n**What to do.** {code.remedy}\n" for code in sorted(Code)]
    return "\n".join([_HEAD, *parts])


if __name__ == "__main__":
    print(markdown(), end="")
