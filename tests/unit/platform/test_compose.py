"""docker-compose.yml has the settings of embedded/settings.py and requires every secret."""

import re

import yaml

from embedded import compose, settings
from include.project import ROOT

TEXT = (ROOT / "docker-compose.yml").read_text()


def test_the_file_is_generated_from_the_settings() -> None:
    assert compose.text() == TEXT, "run: python -m embedded.compose > docker-compose.yml"


def test_the_components_have_the_settings_of_the_embedded_platform() -> None:
    services = yaml.safe_load(TEXT)["services"]
    for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
        variables = services[name]["environment"]
        assert {f"AIRFLOW__{key}": value for key, value in settings.AIRFLOW.items()}.items() <= variables.items()
    for key, value in settings.KAFKA.items():
        assert services["kafka"]["environment"][f"KAFKA_{key.replace('.', '_').upper()}"] == value
    assert {f"{key}={value}" for key, value in settings.POSTGRES.items()} <= set(services["postgres"]["command"])


def test_no_secret_has_a_default() -> None:
    uses = re.findall(r"\$\{(MILLRACE_\w+)(\S)", TEXT)
    assert {name for name, _ in uses} == {f"MILLRACE_{name}" for name in (*compose.REQUIRED, *compose.KEYS)}
    assert {operator for _, operator in uses} == {":"}
    assert TEXT.count("${MILLRACE_") == TEXT.count(":?is not set")


def test_a_new_env_file_has_every_secret() -> None:
    one, other = compose.example(), compose.example()
    names = {line.partition("=")[0] for line in one.splitlines()}
    assert names == {f"MILLRACE_{name}" for name in (*compose.REQUIRED, *compose.KEYS)}
    assert not set(one.splitlines()) & set(other.splitlines())


def test_services_have_health_checks_pinned_images_and_loopback_ports() -> None:
    services = yaml.safe_load(TEXT)["services"]
    assert all("healthcheck" in service for name, service in services.items() if name != "migrate")
    assert all(re.search(r":\d+(\.\d+)*$", service["image"]) for service in services.values())
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_folders_and_versions_are_those_of_the_project() -> None:
    assert f"apache-airflow=={settings.AIRFLOW_VERSION} " in (ROOT / "requirements.txt").read_text()
    assert f":{settings.KAFKA_VERSION}" in (ROOT / "embedded/jars.py").read_text()
    for folder in ("dags", "include", "plugins"):
        assert f"./{folder}:/opt/millrace/{folder}:ro" in TEXT
