"""What the supervisor starts: `python -m embedded.component NAME` becomes the component NAME.

It first ends the processes that dead components left behind: a killed scheduler leaves workers that hold its socket and
its advisory locks, and a restarted broker needs the port of the killed one. Airflow's components import their modules
while the databases are being created and migrated, and then wait for a marker file.
"""

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from setproctitle import setproctitle

from embedded import kafka, postgres, processes, schema_registry
from embedded.home import Home
from embedded.ports import HOST
from include.airflow.patches import preload

# The modules that each component imports in addition to the common ones.
AIRFLOW = {
    "migrate": ("airflow.cli.commands.db_command", "include.warehouse.migrations"),
    "api-server": ("airflow.api_fastapi.main",),
    "scheduler": ("airflow.cli.commands.scheduler_command", "airflow.jobs.scheduler_job_runner"),
    "dag-processor": ("airflow.cli.commands.dag_processor_command", "airflow.jobs.dag_processor_job_runner"),
    "triggerer": ("airflow.cli.commands.triggerer_command", "airflow.jobs.triggerer_job_runner"),
}
# The long-running components, in the order in which `status` lists them.
NAMES = ("postgres", "kafka", "api-server", "scheduler", "dag-processor", "triggerer")
SCHEMA_REGISTRY = "schema-registry"
# With those that a platform has on request only.
ALL = (*NAMES, SCHEMA_REGISTRY)

_COMMANDS = {
    "postgres": postgres.command,
    "kafka": kafka.command,
    SCHEMA_REGISTRY: schema_registry.command,
}


def become(name: str) -> None:
    """Replace this process, a child of the supervisor, by the component."""
    home = Home.current()
    processes.end(processes.orphans(home), grace=5)
    with open(home.run / f"{name}.starts", "ab") as file:
        file.write(b".")
    if name in AIRFLOW:
        _become_airflow(home, name)
    else:
        command = _COMMANDS[name](home)
        os.execvpe(command[0], command, {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")})


def import_airflow() -> None:
    """Import the modules that every Airflow component needs."""
    with _without_garbage_collection():
        import_module("airflow.__main__")
        import_module("airflow.sdk.execution_time.task_runner")
        import_module("airflow.jobs.base_job_runner")


def migrated_marker(home: Home) -> Path:
    """The file that exists once the databases are migrated."""
    return home.run / "migrated"


def starts(home: Home, name: str) -> int:
    """How many times the component was started since the last `up`."""
    try:
        return (home.run / f"{name}.starts").stat().st_size
    except FileNotFoundError:
        return 0


def created_marker(home: Home) -> Path:
    """The file that exists once the databases are created and can be migrated."""
    return home.run / "databases"


def _become_airflow(home: Home, name: str) -> None:
    arguments = {
        "migrate": ["db", "migrate"],
        "api-server": ["api-server", "--host", HOST, "--port", str(home.state()["ports"]["api"])],
        # Every log is below one directory on this machine, so no server for logs is needed.
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
    }.get(name, [name])
    sys.argv = ["airflow", *arguments]
    setproctitle(f"airflow {name}")
    import_airflow()
    with _without_garbage_collection():
        for module in AIRFLOW[name]:
            import_module(module)
        if name == "scheduler":
            preload.libraries()
            preload.airflow()
    marker = created_marker(home) if name == "migrate" else migrated_marker(home)
    while not marker.exists():
        time.sleep(0.02)
    import_module("airflow.__main__").main()
    if name == "migrate":
        import_module("include.warehouse.migrations").migrate()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """For imports, which leave no garbage: collecting it takes a sixth of their time."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    become(sys.argv[1])
