"""The environment variables that connect a process to a platform."""

import json
import os
from collections.abc import Mapping

from embedded import schema_registry, settings
from embedded.home import Home
from embedded.ports import HOST, USUAL
from include.project import ROOT

_CONNECTIONS = tuple(f"MILLRACE_CONN_{name}" for name in ("KAFKA", "POSTGRES", "REGISTRY", "MASK"))
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


def of(home: Home) -> dict[str, str]:
    """The variables that a child process needs in addition to this process's environment.

    The user's connections and settings take precedence, so that everything can run on other brokers and another
    database.
    """
    ports = home.state()["ports"]
    airflow = settings.Airflow(
        metadata=metadata_url(home),
        warehouse=_warehouse(home),
        brokers=f"{HOST}:{ports['kafka']}",
        api=api_url(home),
        execution=api_url(home),
        root=str(ROOT),
        logs=str(home.logs / "tasks"),
        passwords=str(home.passwords),
        secrets=home.secrets,
        registry=schema_registry.url(ports.get("schema_registry", USUAL["schema_registry"])),
    )
    own = {
        "MILLRACE_HOME": str(home.path),
        "MILLRACE_ENV": str(home.environment),
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(ports["api"]),
        # The secret of the hashes that streams store instead of values.
        "AIRFLOW_CONN_MILLRACE_MASK": json.dumps({"conn_type": "generic", "password": home.secrets["mask"]}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "include/airflow/local_settings")]),
        # Requests to this machine, such as for a task's log, need no proxy.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }
    return airflow.environment() | own | certificates(os.environ) | overrides()


def child(home: Home) -> dict[str, str]:
    """The whole environment of a child process: this process's, without the settings of another Airflow."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    return inherited | of(home)


def warehouse_connection(home: Home, database: str = "warehouse") -> str:
    """The Airflow connection to a database of the platform's server, as AIRFLOW_CONN_MILLRACE_POSTGRES takes it."""
    return json.dumps({"conn_type": "postgres", **_warehouse(home), "schema": database})


def _warehouse(home: Home) -> dict[str, str | int]:
    port, password = home.state()["ports"]["postgres"], home.secrets["warehouse"]
    return {"host": HOST, "port": port, "login": "warehouse", "password": password, "schema": "warehouse"}


def overrides() -> dict[str, str]:
    """The user's variables MILLRACE_CONN_KAFKA, MILLRACE_CONN_POSTGRES, MILLRACE_CONN_REGISTRY, MILLRACE_CONN_MASK
    and MILLRACE_AIRFLOW__<SECTION>__<KEY>, as Airflow reads them.
    """
    found = {}
    for name, value in os.environ.items():
        if name in _CONNECTIONS:
            found[f"AIRFLOW_CONN_MILLRACE_{name.rpartition('_')[2]}"] = value
        elif name.startswith("MILLRACE_AIRFLOW__"):
            found[name.removeprefix("MILLRACE_")] = value
    return found


def certificates(given: Mapping[str, str]) -> dict[str, str]:
    """The certificate bundle that the user named for one program, as variables for every program."""
    bundle = next((given[name] for name in _BUNDLES if given.get(name)), None)
    return {name: bundle for name in _BUNDLES[:2]} if bundle else {}


def metadata_url(home: Home) -> str:
    """The SQLAlchemy URL of Airflow's metadata database."""
    port = home.state()["ports"]["postgres"]
    return f"postgresql+psycopg2://airflow:{home.secrets['airflow']}@{HOST}:{port}/airflow"


def api_url(home: Home) -> str:
    """The address of Airflow's UI and REST API."""
    return f"http://{HOST}:{home.state()['ports']['api']}"
