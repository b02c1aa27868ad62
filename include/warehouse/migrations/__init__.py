"""The warehouse's schema, migrated by alembic: one branch of revisions for each domain, all from ``0001_position``.

What comes after what, a file's ``down_revision`` alone tells; the number in its name only keeps names apart.
"""

from __future__ import annotations

from pathlib import Path


def migrate() -> None:
    """Brings the warehouse to the newest schema; a no-op when it is there already. Safe to call from two processes.

    Raises:
        UserError: PostgreSQL does not answer.
    """
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(configuration, "heads")
