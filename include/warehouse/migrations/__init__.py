"""Migrates the warehouse's schema with alembic: one linear history, forward only.

The names of the files in ``versions`` sort in the order in which they apply. ``0001_baseline`` runs ``tables.sql`` and
``views.sql``; a later change is a new migration and does not edit these two files.
"""

from __future__ import annotations

import re
from pathlib import Path

BASELINE = "0001_baseline"
FORMER_HEADS = frozenset({"0010_landing_tables", "0011_retirement"})
"""The heads of the former, branched history. A warehouse at both is adopted at ``BASELINE``."""
FORMER = FORMER_HEADS | {
    "0001_position",
    "0002_training",
    "0003_landing",
    "0004_registry",
    "0005_landing_gap",
    "0006_forgotten",
    "0006_repeats",
    "0006_verification",
    "0007_checkpoint",
    "0008_landing_replay",
    "0009_slices",
}
"""All revisions of the former history, which backups name."""


def migrate() -> None:
    """Upgrades the warehouse to the newest schema. Two processes may call it at the same time.

    Raises:
        UserError: PostgreSQL does not answer, or the warehouse has a schema that cannot be upgraded.
    """
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(configuration, "head")


def revisions() -> list[str]:
    """The names of all revisions, in the order in which they apply."""
    return sorted(path.stem for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))


def statements(name: str) -> str:
    """The SQL of a file of this folder, such as ``tables``."""
    return (Path(__file__).parent / f"{name}.sql").read_text()


def comments() -> str:
    """The statements of ``tables.sql`` that comment tables and columns."""
    return "\n".join(re.findall(r"^COMMENT ON .*?;$", statements("tables"), re.MULTILINE | re.DOTALL))
