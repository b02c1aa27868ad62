"""The runbook names commands and DAGs that exist, and quotes what Millrace says."""

from __future__ import annotations

import re

import pytest

from cli.main import PANELS
from include.project import ROOT

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
COMMANDS = {entry.name for entries in PANELS.values() for entry in entries}
CODE = "\n".join(
    path.read_text() for folder in ("include", "embedded", "cli") for path in (ROOT / folder).rglob("*.py")
)
PLAIN = re.sub(r'"\s*\n\s*f?"', "", CODE)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\./millrace\s+([a-z-]+)", RUNBOOK)) - {"is"}))
def test_every_command_exists(command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize("dag", sorted(set(re.findall(r"`(maintain__\w+)`", RUNBOOK))))
def test_every_dag_exists(dag: str) -> None:
    assert (ROOT / "dags" / f"{dag.replace('__', '_')}.py").exists()


@pytest.mark.parametrize(
    "said",
    [
        "were removed before they were ",
        "does not exist.",
        "was recreated",
        " and its memory_limit is ",
        " and its time_limit is ",
        " was ended by ",
        "asks for, is in use",
        " does not start: ",
        "can be landed",
        "is paused, and ",
        "The databases could not be migrated",
        "was interrupted.",
        "is full.",
        "another ./millrace is at work on the platform",
    ],
)
def test_what_it_quotes_is_said(said: str) -> None:
    assert said in PLAIN


def test_every_entry_says_how_to_confirm_it_what_to_do_and_when_it_is_over() -> None:
    entries = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    assert len(entries) >= 15
    for entry in entries:
        title = entry.partition("\n")[0]
        if title not in ("The password is lost", "Upgrade", "Restore from a backup", "`up` fails"):
            assert "**Confirm.**" in entry, title
        if title != "The password is lost":
            assert "**Over**" in entry, title
