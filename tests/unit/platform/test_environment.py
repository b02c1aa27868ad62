"""The environment variables of a child process."""

import json
from pathlib import Path

import pytest

from embedded import environment
from embedded.home import Home
from embedded.ports import USUAL


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.update_state(ports=dict(USUAL))
    return home


def test_the_connections_are_those_of_the_platform(home: Home) -> None:
    variables = environment.of(home)
    kafka = json.loads(variables["AIRFLOW_CONN_MILLRACE_KAFKA"])
    postgres = json.loads(variables["AIRFLOW_CONN_MILLRACE_POSTGRES"])
    assert kafka == {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:9092"}}
    assert (postgres["host"], postgres["port"], postgres["schema"]) == ("127.0.0.1", 5432, "warehouse")
    assert variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("@127.0.0.1:5432/airflow")


def test_the_users_connections_and_settings_take_precedence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_CONN_KAFKA", '{"conn_type": "kafka", "extra": {"bootstrap.servers": "elsewhere:1"}}')
    monkeypatch.setenv("MILLRACE_AIRFLOW__CORE__PARALLELISM", "3")
    variables = environment.of(home)
    assert "elsewhere:1" in variables["AIRFLOW_CONN_MILLRACE_KAFKA"]
    assert variables["AIRFLOW__CORE__PARALLELISM"] == "3"


def test_settings_of_another_airflow_are_removed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "64")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "postgres://shop")
    variables = environment.child(home)
    assert variables["AIRFLOW__CORE__PARALLELISM"] == "12"
    assert "AIRFLOW__LOGGING__REMOTE_LOGGING" not in variables
    assert variables["AIRFLOW_CONN_SHOP"] == "postgres://shop"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"])
def test_a_certificate_bundle_of_one_program_is_passed_to_all(name: str) -> None:
    assert environment.certificates({name: "/etc/company.pem"}) == {
        "SSL_CERT_FILE": "/etc/company.pem",
        "REQUESTS_CA_BUNDLE": "/etc/company.pem",
    }


def test_without_certificates_no_variable_is_set() -> None:
    assert environment.certificates({}) == {}
