"""The types of all queries, as the databases describe them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

from embedded import postgres
from embedded.platform import Platform
from include.warehouse import queries
from include.warehouse.connection import connect
from include.warehouse.queries import describe


def test_the_types_of_all_queries_are_current(airflow_platform: Platform) -> None:
    port = airflow_platform.home.state()["ports"]["postgres"]
    with (
        closing(connect("test")) as warehouse,
        closing(postgres.connect(airflow_platform.home, port, "airflow")) as metadata,
    ):
        metadata.autocommit = False
        found = {
            file.stem: describe.module(metadata if file.stem == "metadata" else warehouse, file.stem)
            for file in queries.DIRECTORY.glob("*.sql")
        }
    for domain, text in found.items():
        formatted = subprocess.run(
            [sys.executable, "-m", "ruff", "format", "-"], input=text, capture_output=True, text=True, check=True
        )
        assert (queries.DIRECTORY / f"signatures/{domain}.py").read_text() == formatted.stdout, (
            "write it again: ./millrace python .ci/signatures"
        )
