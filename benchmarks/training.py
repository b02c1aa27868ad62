"""A training run in Airflow, from its trigger to its last accuracy row, compared with a plain script of the same fits.

Both fit five models and the baseline, alternately, on a warm platform: on Seattle's weather up to 2014, tested on 2015,
or on many rows of doubles, with a temporary definition.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import doubles, passing
from benchmarks.figures import Spread, progress, show, write
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError
from include.training.run import sealed_run_id
from include.warehouse.connection import connected

REPETITIONS = 5
LOOK_S, WITHIN_S = 0.2, 900.0
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One dataset to train on.

    Attributes:
        dataset: The dataset's name; its DAGs exist.
        form: The parameters of its publication.
        plain: The command line of the plain script.
    """

    dataset: str
    form: dict[str, str]
    plain: list[str]


def main(json_path: str | None = None, rows: int | None = None, repetitions: int = REPETITIONS) -> None:
    """Measures, prints the table, and writes the JSON file if there is one.

    Args:
        rows: Train on this many rows of doubles instead of the weather.
        repetitions: Runs of each, after one warm-up.
    """
    api = AirflowApi.of(Platform())
    with _weather() if rows is None else _numbers(rows) as case:
        version = _publish(api, case)
        progress.print("warming up …")
        _check(_ours(api, case, version)[1], _plain(case)[1])
        ours, plain = [], []
        for repetition in range(repetitions):
            progress.print(f"repetition {repetition + 1} of {repetitions} …")
            ours.append(_ours(api, case, version)[0])
            plain.append(_plain(case)[0])
            progress.print(f"  ours {ours[-1]:.2f} s, plain {plain[-1]:.2f} s")
    found = {"ours": Spread.of(ours), "plain_script": Spread.of(plain)}
    ratio = found["ours"].median / found["plain_script"].median
    size = "a small dataset" if rows is None else f"{rows:,} rows"
    show(
        f"Five models on {size}, from the trigger to the last accuracy row",
        ["", "median s", "min s", "max s"],
        [[name, *(f"{value:.2f}" for value in (s.median, s.min, s.max))] for name, s in found.items()],
        [f"ours takes {ratio:.2f} times as long as the plain script"],
    )
    results = {name: {"seconds": s.median, "min": s.min, "max": s.max} for name, s in found.items()}
    write(json_path, results, {"plain_script": ratio}, repetitions=repetitions)


@contextmanager
def _weather() -> Iterator[Case]:
    from vega_datasets import data

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weather.csv"
        data.seattle_weather().to_csv(file, index=False)
        plain = [sys.executable, str(HERE / "plain_training.py"), str(file)]
        yield Case("seattle_weather", {"interval_start": "2015-01-01", "interval_end": "2016-01-01"}, plain)


@contextmanager
def _numbers(rows: int) -> Iterator[Case]:
    from benchmarks import plain_numbers

    name, folder = f"bench_{rows}", passing.folder()
    file, divided = folder / "rows.parquet", folder / "divided.parquet"
    doubles.write(file, rows)
    plain_numbers.divide(file, divided)
    text = (HERE / "definition.txt").read_text()
    with passing.definition(name, text.replace("NAME", name).replace("FILE", str(file))):
        yield Case(name, {}, [sys.executable, str(HERE / "plain_numbers.py"), str(divided)])


def _publish(api: AirflowApi, case: Case) -> str:
    """Publishes the version, unless it exists, and returns its id."""
    dags = [f"publish__{case.dataset}", f"train__{case.dataset}", "dispatch"]
    api.wait_for_dags(dags, timeout=180)
    for dag_id in dags:
        api.unpause(dag_id)
    run = api.wait(dags[0], api.trigger(dags[0], case.form).run_id)
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/publish/xcomEntries/return_value"
    version = str(api.call("GET", path)["value"])
    _wait_until_idle(api, case, version)
    return version


def _wait_until_idle(api: AirflowApi, case: Case, version: str) -> None:
    """Waits for the end of the run that the sealed version starts, and of all other runs of the dataset."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        runs = [run for run in api.runs() if run.dag_id.endswith(case.dataset)]
        if any(run.run_id == sealed_run_id(version) for run in runs) and all(run.finished for run in runs):
            return
        time.sleep(1)
    raise UserError(
        f"The runs of {case.dataset} have not ended after 900 s.", "See ./millrace status.", code=Code.BENCHMARK_FAILED
    )


def _ours(api: AirflowApi, case: Case, version: str) -> tuple[float, dict[str, float]]:
    with connected("millrace bench") as connection, connection.cursor() as cursor:
        connection.autocommit = True
        started = time.time()
        run = api.trigger(f"train__{case.dataset}", {"version": version})
        # Query PostgreSQL: requests to the api-server would slow the fits down.
        while time.time() - started < WITHIN_S:
            time.sleep(LOOK_S)
            cursor.execute("SELECT state FROM millrace.training_run WHERE run_id = %s", (run.run_id,))
            if cursor.fetchall() not in ([], [("running",)]):
                break
        api.wait(run.dag_id, run.run_id)
        cursor.execute(
            "SELECT model, accuracy, extract(epoch FROM finished_at) FROM millrace.accuracy WHERE run_id = %s",
            (run.run_id,),
        )
        rows = cursor.fetchall()
    return max(float(finished) for _, _, finished in rows) - started, {model: value for model, value, _ in rows}


def _plain(case: Case) -> tuple[float, dict[str, float]]:
    started = time.time()
    script = subprocess.run(case.plain, capture_output=True, text=True, check=True)
    return time.time() - started, json.loads(script.stdout)


def _check(ours: dict[str, float], plain: dict[str, float]) -> None:
    if ours != plain:
        raise UserError(f"The accuracies differ: {ours}, and {plain} by the plain script.", code=Code.BENCHMARK_FAILED)
