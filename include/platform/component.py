"""What the supervisor starts: `python -m include.platform.component NAME` becomes the component NAME.

It first ends what an earlier incarnation left behind: a killed scheduler leaves workers that hold its socket and its
advisory locks, a killed broker's successor needs its port. Airflow's components then import themselves, which takes
longer than making the databases, and wait for these at the gate.
"""

import gc
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from include.platform import environment, kafka, postgres, preload, processes
from include.platform.home import Home
from include.platform.ports import HOST

# The command of each component, and what it imports sooner or later: it may do so while the databases are made.
AIRFLOW = {
    "api-server": ("airflow.api_fastapi.main",),
    "scheduler": ("airflow.cli.commands.scheduler_command", "airflow.jobs.scheduler_job_runner"),
    "dag-processor": ("airflow.cli.commands.dag_processor_command", "airflow.jobs.dag_processor_job_runner"),
    "triggerer": ("airflow.cli.commands.triggerer_command", "airflow.jobs.triggerer_job_runner"),
}
NAMES = ("postgres", "kafka", *AIRFLOW)


def main() -> None:
    """Become the component that the first argument names."""
    name = sys.argv[1]
    home = Home.current()
    ports = home.state()["ports"]
    processes.end(processes.of(home, name), grace=5)
    _count_start(home, name)
    if name == "postgres":
        command = postgres.command(home, ports["postgres"])
        os.execvp(command[0], command)
    elif name == "kafka":
        command = kafka.command(home)
        os.execvp(command[0], command)
    else:
        _become_airflow(home, name)


def gate(home: Home) -> Path:
    """The file whose presence says that the databases are migrated."""
    return home.run / "migrated"


def starts(home: Home, name: str) -> int:
    """How often the component was started since the last `up`."""
    try:
        return (home.run / f"{name}.starts").stat().st_size
    except FileNotFoundError:
        return 0


def _count_start(home: Home, name: str) -> None:
    with open(home.run / f"{name}.starts", "ab") as file:
        file.write(b".")


def _become_airflow(home: Home, name: str) -> None:
    settings = environment.child(home)
    os.environ.clear()
    os.environ.update(settings)
    arguments = {
        "api-server": ["--host", HOST, "--port", str(home.state()["ports"]["api"])],
        # Every log lies below one directory on this machine: nobody needs them over a port.
        "scheduler": ["--skip-serve-logs"],
        "triggerer": ["--skip-serve-logs"],
    }.get(name, [])
    sys.argv = ["airflow", name, *arguments]
    # Nothing that is imported is ever collected; looking for garbage among it takes a sixth of the time.
    gc.disable()
    if name == "scheduler":
        preload.libraries()
    airflow = import_module("airflow.__main__")
    for module in AIRFLOW[name]:
        import_module(module)
    if name == "scheduler":
        preload.airflow()
    gc.freeze()
    gc.enable()
    while not gate(home).exists():
        time.sleep(0.05)
    airflow.main()


if __name__ == "__main__":
    main()
