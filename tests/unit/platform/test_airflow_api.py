"""The client of Airflow's REST API."""

from __future__ import annotations

import httpx
import pytest

from embedded.airflow_api import AirflowApi
from include.error_codes import Code
from tests.errors import raises


def api(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response | Exception) -> AirflowApi:
    """A client whose requests get these answers, one after the other."""
    remaining = iter(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        found = next(remaining)
        if isinstance(found, Exception):
            raise found
        return found

    client = AirflowApi("http://127.0.0.1:1", "admin", "x")
    monkeypatch.setattr(client, "_http", httpx.Client(base_url="http://x", transport=httpx.MockTransport(answer)))
    return client


def test_a_request_that_is_not_answered_in_time_does_not_end_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = httpx.Response(200, json={"dags": [{"dag_id": "train__iris"}], "total_entries": 1})
    api(monkeypatch, httpx.ReadTimeout("busy"), listed).wait_for_dags(["train__iris"], timeout=10)


def test_an_api_that_is_down_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    client = api(monkeypatch, httpx.ConnectError("refused"))
    with raises(Code.AIRFLOW_UNREACHABLE):
        client.wait_for_dags(["train__iris"], timeout=10)
