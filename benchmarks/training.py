"""A training run in Airflow, from its trigger to its last accuracy row, beside a plain script that does the same fits.

Both fit Seattle's weather up to 2014 and test on 2015, five models and the baseline, in turn, on a warm platform.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Spread, progress, show, write
from include.errors import UserError
from include.platform.airflow_api import AirflowApi
from include.platform.platform import Platform
from include.versions import register
from include.warehouse.connection import connected

if TYPE_CHECKING:
    import pandas as pd

DATASET = "seattle_weather"
REPETITIONS = 5
PLAIN = Path(__file__).with_name("plain_training.py")


def main(json_path: str | None = None) -> None:
    """Measures, prints the table, and writes the JSON file if one is asked for."""
    api = AirflowApi.of(Platform())
    version = _publish(api)
    file = Path(tempfile.mkdtemp()) / "weather.csv"
    _rows().to_csv(file, index=False)
    progress.print("warming up …")
    _check(_ours(api, version)[1], _plain(file)[1])
    ours, plain = [], []
    for repetition in range(REPETITIONS):
        progress.print(f"repetition {repetition + 1} of {REPETITIONS} …")
        ours.append(_ours(api, version)[0])
        plain.append(_plain(file)[0])
    found = {"ours": Spread.of(ours), "plain_script": Spread.of(plain)}
    ratio = found["ours"].median / found["plain_script"].median
    show(
        "Five models on a small dataset, from the trigger to the last accuracy row",
        ["", "median s", "min s", "max s"],
        [[name, *(f"{value:.2f}" for value in (s.median, s.min, s.max))] for name, s in found.items()],
        [f"ours takes {ratio:.2f} times as long as the plain script"],
    )
    results = {name: {"seconds": s.median, "min": s.min, "max": s.max} for name, s in found.items()}
    write(json_path, results, {"plain_script": ratio}, repetitions=REPETITIONS)


def _publish(api: AirflowApi) -> str:
    """Publishes the version of 2015, unless it is there, and gives its id."""
    api.wait_for_dags([f"publish__{DATASET}", f"train__{DATASET}", "dispatch"])
    for dag_id in (f"publish__{DATASET}", f"train__{DATASET}", "dispatch"):
        api.unpause(dag_id)
    form = {"interval_start": "2015-01-01", "interval_end": "2016-01-01"}
    run = api.wait(f"publish__{DATASET}", api.trigger(f"publish__{DATASET}", form).run_id)
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/publish/xcomEntries/return_value"
    version = str(api.call("GET", path)["value"])
    _wait_until_idle(api, version)
    return version


def _wait_until_idle(api: AirflowApi, version: str) -> None:
    """Lets the runs that publishing has started come to their end."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        unfinished = [run for run in api.runs() if not run.finished and run.dag_id.endswith(DATASET)]
        try:
            register.find(DATASET, version)
        except register.UnknownVersion:
            unfinished.append(api.runs("dispatch")[0])
        if not unfinished:
            return
        time.sleep(1)
    raise UserError("The platform does not come to rest.", "Look at ./millrace status.")


def _ours(api: AirflowApi, version: str) -> tuple[float, dict[str, float]]:
    started = time.time()
    run = api.trigger(f"train__{DATASET}", {"version": version})
    api.wait(run.dag_id, run.run_id)
    with connected("millrace bench") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT model, accuracy, extract(epoch FROM finished_at) FROM millrace.accuracy WHERE run_id = %s",
            (run.run_id,),
        )
        rows = cursor.fetchall()
    return max(float(finished) for _, _, finished in rows) - started, {model: value for model, value, _ in rows}


def _plain(file: Path) -> tuple[float, dict[str, float]]:
    started = time.time()
    script = subprocess.run([sys.executable, str(PLAIN), str(file)], capture_output=True, text=True, check=True)
    return time.time() - started, json.loads(script.stdout)


def _check(ours: dict[str, float], plain: dict[str, float]) -> None:
    if ours != plain:
        raise UserError(f"The accuracies differ: ours {ours}, the plain script's {plain}.")


def _rows() -> pd.DataFrame:
    from vega_datasets import data

    return data.seattle_weather()
