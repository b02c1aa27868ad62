"""Landing, versions, training and promotion work in a process that cannot import Airflow."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from include.project import ROOT

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SCRIPT = """
import sys
from dataclasses import replace


class NoAirflow:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NoAirflow())

from include.datasets import definitions
from include.landing import proof
from include.landing.drain import drain
from include.promotion import evaluation_queue
from include.streams import definitions as streams
from include.streams.produce import produce
from include.training import dispatch, fitting, run
from include.versions.manifest import Interval
from include.versions.publication import publish
from include.warehouse.connection import connected

payments = replace(streams.get("payments"), quiet="1 second")
produce(payments, 300)
print("landed", drain(payments, "test").landed)
with connected() as connection:
    assert proof.prove(connection, payments).wrong == []

digits = definitions.get("digits")
version = publish(digits, Interval(None, None), asked_by="test").version
dispatch.land("test")
planned = run.begin(digits, "without airflow", {"version": version, "seed": 0, "models": ["logistic"]}, "test")
for task in planned:
    fitting.fit(digits, task["run"], task["model"])
run.settle(planned)
print("evaluated", len(evaluation_queue.evaluate_pending_runs(digits)))
assert not [name for name in sys.modules if name.partition(".")[0] == "airflow"]
"""


@pytest.mark.usefixtures("services")
def test_a_process_without_airflow_lands_and_trains(warehouse: Connection) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["landed 300", "evaluated 1"]
