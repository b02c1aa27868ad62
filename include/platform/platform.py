"""One platform: Kafka, PostgreSQL and Airflow as real processes of one home."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.errors import UserError
from include.platform import environment, kafka, ports, postgres, processes
from include.platform.component import AIRFLOW, NAMES, gate, starts
from include.platform.home import ROOT, Home
from include.platform.supervisor import STOP_SECONDS, Supervisor

SERVICES = ("postgres", "kafka")
START_SECONDS = 120.0

# Whoever needs another stops first.
_STOP_ORDER = ("scheduler", "triggerer", "dag-processor", "api-server", "kafka", "postgres")


@dataclass(frozen=True)
class Health:
    """One component at one moment.

    Attributes:
        state: supervisord's word: RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL.
        healthy: Whether it does its work, asked of the component itself.
        detail: What is wrong, or where it listens.
        restarts: Starts since the last `up`, less the first.
        uptime: Seconds since the last start.
    """

    name: str
    state: str
    healthy: bool
    detail: str
    pid: int
    restarts: int
    uptime: float


class Platform:
    """The platform of one home.

    Args:
        home: The home's directory; by default the one that the environment names.
        report: Called with each step of `up` and `down`, in words.
    """

    def __init__(
        self, home: Home | Path | None = None, report: Callable[[str], None] = lambda step: None
    ) -> None:
        self.home = (
            home if isinstance(home, Home) else Home(Path(home).absolute()) if home else Home.current()
        )
        self._report = report
        self._supervisor = Supervisor(self.home)

    def up(self, components: Iterable[str] = NAMES) -> bool:
        """Start the components that do not run, migrate the databases, and wait until everything is healthy.

        Gives whether there was anything to do.

        Raises:
            UserError: Something outside the code stops it; what this call started is ended again.
        """
        wanted = [name for name in NAMES if name in set(components)]
        if self._is_up(wanted):
            return False
        fresh = not self._supervisor.is_alive()
        try:
            self._start(wanted, fresh)
        except BaseException:
            if fresh:
                self.down()
            raise
        return True

    def down(self) -> None:
        """Stop every component, the dependent ones first, and leave no process behind."""
        if self._supervisor.is_alive():
            running = self._supervisor.components()
            first, *rest = [[name for name in _STOP_ORDER if name in AIRFLOW], ["kafka"], ["postgres"]]
            for group in (first, *rest):
                group = [name for name in group if running.get(name, {}).get("pid")]
                if group:
                    self._report(f"stopping {', '.join(group)}")
                    with ThreadPoolExecutor(len(group)) as pool:
                        list(pool.map(self._supervisor.stop_component, group))
            with suppress(OSError):
                self._supervisor.shut_down()
        processes.end(processes.of(self.home.path), grace=10)

    def status(self) -> list[Health]:
        """The components in the order of their start; empty when the platform is down."""
        if not self._supervisor.is_alive():
            return []
        known = self._supervisor.components()
        with ThreadPoolExecutor(len(NAMES)) as pool:
            return list(pool.map(lambda name: self._health(name, known[name]), NAMES))

    def environment(self) -> dict[str, str]:
        """Environment variables for a child process that shall work on this platform. Raises UserError before `up`."""
        if "ports" not in self.home.state():
            raise UserError("The platform was never started.", "Run ./millrace up first.")
        return environment.of(self.home)

    def _is_up(self, wanted: list[str]) -> bool:
        healthy = {health.name for health in self.status() if health.healthy}
        return healthy.issuperset(wanted)

    def _start(self, wanted: list[str], fresh: bool) -> None:
        if fresh:
            self._prepare()
        airflow = [name for name in wanted if name in AIRFLOW]
        self._supervisor.start_component("kafka")
        for name in airflow:
            self._supervisor.start_component(name)
        self._report("starting PostgreSQL and Kafka")
        port = self.home.state()["ports"]["postgres"]
        postgres.initialise(self.home)
        self._supervisor.start_component("postgres")
        postgres.wait(self.home, port, START_SECONDS)
        postgres.make_databases(self.home, port)
        kafka.wait(self.home.state()["ports"]["kafka"], START_SECONDS)
        if airflow:
            self._report("migrating the databases")
            self._migrate()
        self._migrate_warehouse()
        gate(self.home).touch()
        self._report("waiting for " + ", ".join(wanted))
        self._wait(wanted)

    def _prepare(self) -> None:
        self.home.prepare()
        processes.end(processes.of(self.home.path), grace=5)
        chosen = ports.choose(self.home.state().get("ports", {}))
        self.home.remember(ports=chosen)
        kafka.prepare(self.home, chosen)
        gate(self.home).unlink(missing_ok=True)
        for name in NAMES:
            (self.home.run / f"{name}.starts").unlink(missing_ok=True)
        self._supervisor.start()

    def _migrate(self) -> None:
        import subprocess
        import sys

        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=os.environ | self.environment(),
            check=True,
            capture_output=True,
        )

    def _migrate_warehouse(self) -> None:
        import subprocess
        import sys

        code = "from include.warehouse.migrations import migrate; migrate()"
        subprocess.run([sys.executable, "-c", code], env=os.environ | self.environment(), check=True)

    def _wait(self, wanted: list[str]) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            ill = [health for health in self.status() if health.name in wanted and not health.healthy]
            if not ill:
                return
            if time.monotonic() > end:
                first = ill[0]
                raise UserError(
                    f"{first.name} is not healthy: {first.detail}.", f"See ./millrace logs {first.name}."
                )
            time.sleep(0.1)

    def _health(self, name: str, info: dict[str, Any]) -> Health:
        detail, healthy = info["statename"], False
        if info["statename"] in ("RUNNING", "STARTING") and info["pid"]:
            try:
                detail, healthy = self._ask(name), True
            except Exception as error:  # any failure of a component's own answer is the detail
                detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        uptime = float(info["now"] - info["start"]) if info["pid"] else 0.0
        restarts = max(0, starts(self.home, name) - 1)
        return Health(name, info["statename"], healthy, detail, info["pid"], restarts, uptime)

    def _ask(self, name: str) -> str:
        known = self.home.state()["ports"]
        match name:
            case "postgres":
                postgres.connect(self.home, known["postgres"]).close()
                return f"{ports.HOST}:{known['postgres']}"
            case "kafka":
                kafka.wait(known["kafka"], 1)
                return f"{ports.HOST}:{known['kafka']}"
            case _:
                return self._ask_airflow(name)

    def _ask_airflow(self, name: str) -> str:
        import json
        import urllib.request

        url = environment.api_url(self.home)
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:
            health = json.load(answer)
        if name == "api-server":
            return url
        part = health[name.replace("-", "_")]
        if part["status"] != "healthy":
            raise RuntimeError(f"its last heartbeat was {part.get(f'latest_{name}_heartbeat')}")
        return "healthy"
