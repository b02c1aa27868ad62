"""The runbook names commands and DAGs that exist, and quotes messages that Millrace prints."""

from __future__ import annotations

import re

import pytest

from cli.main import PANELS
from include.error_codes import Code
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


@pytest.mark.parametrize("code", sorted(set(re.findall(r"`\[([a-z-]+)\]`", RUNBOOK))))
def test_every_code_exists(code: str) -> None:
    assert code in list(Code)


@pytest.mark.parametrize(
    "quoted",
    [
        "an open transaction blocks records",
        "the lag is unknown while Kafka is down",
        "another ./millrace is changing the platform",
        "nothing waits",
        "ready after",
    ],
)
def test_a_quoted_message_exists(quoted: str) -> None:
    assert quoted in PLAIN
    assert quoted.removesuffix(" after") in RUNBOOK


def test_each_entry_has_its_confirmation_and_its_end() -> None:
    entries = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    assert len(entries) >= 15
    for entry in entries:
        title = entry.partition("\n")[0]
        if title not in ("The password is lost", "Upgrade", "Restore from a backup", "`up` fails"):
            assert "**Confirm.**" in entry, title
        if title != "The password is lost":
            assert "**Over**" in entry, title
