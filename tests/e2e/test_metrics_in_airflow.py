"""The metrics that the API server serves are those of the command line."""

from __future__ import annotations

import subprocess

import httpx
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from embedded import environment
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.monitoring.metrics import CONTENT_TYPE
from include.project import ROOT
from tests.polling import until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for each in family.samples
    }


def test_a_viewer_reads_the_metrics(airflow_platform: Platform, airflow_api: AirflowApi) -> None:
    airflow_api.wait_for_dags(["maintain__expectations"])
    viewer = SimpleAuthManagerUser(username="prometheus", role="VIEWER")
    headers = {"authorization": f"Bearer {SimpleAuthManager().generate_jwt(viewer)}"}
    schedule = ("millrace_schedule_last_success_timestamp_seconds", (("dag_id", "maintain__expectations"),))
    address = f"{environment.api_url(airflow_platform.home)}/millrace/metrics"

    def scraped() -> Samples | None:
        answer = httpx.get(address, headers=headers, timeout=30, trust_env=False)
        assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
        found = samples(answer.text)
        return found if schedule in found else None

    served = until("the DAG that runs every minute has succeeded", scraped, 180, every_s=2)
    for part in ("kafka", "postgresql", "airflow"):
        assert served["millrace_up", (("part", part),)] == 1
    # Its samples list every stream that is defined.
    assert served["millrace_stream_lag_records", (("stream", "payments"),)] == 0
    command = subprocess.run([ROOT / "millrace", "metrics"], capture_output=True, text=True, check=True, timeout=120)
    # More may have happened in between, and a definition of another test may have been deleted.
    lasting = {sample for sample in served if "watched" not in str(sample)}
    assert lasting and lasting <= samples(command.stdout).keys()
