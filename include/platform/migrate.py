"""Bring both databases up to date: `python -m include.platform.migrate`.

A process of its own, started before the databases exist: what it imports takes longer than making them.
"""

import contextlib
import io
import sys
import time
from pathlib import Path

from include.platform.home import Home


def ready(home: Home) -> Path:
    """The file whose presence says that the databases exist."""
    return home.run / "databases"


def main() -> None:
    """Import, wait for the databases, migrate. What went wrong is the last line of standard error."""
    from airflow import __main__ as airflow

    from include.warehouse.migrations import migrate

    while not ready(Home.current()).exists():
        time.sleep(0.02)
    sys.argv = ["airflow", "db", "migrate"]
    with contextlib.redirect_stdout(io.StringIO()):
        airflow.main()
    migrate()


if __name__ == "__main__":
    main()
