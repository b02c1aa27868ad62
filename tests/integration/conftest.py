"""After each test, its training runs are repeated and must give identical predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.fixture(autouse=True)
def verified(request: pytest.FixtureRequest) -> Iterator[None]:
    """Verify the finished runs in the test's warehouse. A test marked ``altered`` changes their input on purpose."""
    if "warehouse" not in request.fixturenames or request.node.get_closest_marker("altered"):
        yield
        return
    connection: Connection = request.getfixturevalue("warehouse")
    yield
    from include.training.verification import verify_run

    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SELECT run FROM millrace.training_run WHERE state = 'success' ORDER BY run")
        runs = [run for (run,) in cursor.fetchall()]
    connection.rollback()
    for run in runs:
        found = verify_run(run, "the test suite")
        assert found.outcome == "identical", found
