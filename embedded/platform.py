"""One platform: Kafka, PostgreSQL and Airflow as real processes of one home."""

import hashlib
import json
import signal
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from embedded import environment, kafka, ports, postgres, processes
from embedded.component import AIRFLOW, NAMES, gate, ready, starts
from embedded.home import Home
from embedded.supervisor import START_SECONDS, Supervisor
from include.errors import UserError
from include.project import ROOT

SERVICES = ("postgres", "kafka")
_TRIES = 3
# Seconds that running tasks get to come to their own end when the platform is stopped.
_PATIENCE = 2.0

# A component stops before those that it needs.
_STOP_ORDER = (("scheduler",), ("triggerer", "dag-processor", "api-server"), ("kafka",), ("postgres",))


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


def code_fingerprint() -> str:
    """What code the platform runs, and with which connections and settings of the user's: a change of them, except to
    definitions, takes effect by a restart alone.
    """
    from include.datasets import definitions as datasets
    from include.streams import definitions as streams

    definitions = {ROOT / "include/datasets": datasets.MACHINERY, ROOT / "include/streams": streams.MACHINERY}
    code = [
        file
        for folder in ("include", "embedded")
        for pattern in ("*.py", "*.sql")
        for file in (ROOT / folder).rglob(pattern)
        if file.parent not in definitions or file.stem in {"__init__", *definitions[file.parent]}
    ]
    digest = hashlib.sha256()
    for file in [ROOT / "requirements.txt", ROOT / "embedded/kafka.lock.toml", *sorted(code)]:
        digest.update(file.read_bytes())
    # Other connections: the warehouse that was migrated may be another, too.
    digest.update(json.dumps(sorted(environment.overrides().items())).encode())
    return digest.hexdigest()


class Platform:
    """The platform of one home.

    Args:
        home: The home's directory; by default the one that the environment names.
        report: Called with each step of `up` and `down`, in words.
    """

    def __init__(self, home: Home | Path | None = None, report: Callable[[str], None] = lambda step: None) -> None:
        self.home = home if isinstance(home, Home) else Home(Path(home).absolute()) if home else Home.current()
        self._report = report
        self._supervisor = Supervisor(self.home)
        self._earlier: dict[str, int] = {}

    def up(self, components: Iterable[str] = NAMES) -> bool:
        """Start the components that do not run, migrate the databases, and wait until everything is healthy.

        A platform that was started from other code, before a `git pull` for example, is stopped first. Gives whether
        there was anything to do.

        Raises:
            UserError: Something outside the code stops it; what this call started is ended again.
        """
        wanted = [name for name in NAMES if name in set(components)]
        self.home.prepare()
        with self.held():
            self.home.require_whole()
            self.home.clear_staging()
            fresh = not self._supervisor.is_alive()
            if not fresh and self.home.state().get("generation") != code_fingerprint():
                self._report("the running platform is of other code or settings, or half started; stopping it")
                self.stop()
                fresh = True
            if not fresh and self._is_up(wanted):
                return False
            if not fresh and "api-server" in wanted and self._lost_port():
                self._report("the port chosen for Airflow is somebody else's by now; starting again with another")
                self.stop()
                fresh = True
            if fresh:
                processes.end(processes.of(self.home), grace=5)
            try:
                if fresh:
                    with ports.held(self.home.state().get("ports", {})) as chosen:
                        self._prepare(chosen)
                        self._start(wanted)
                else:
                    self._start(wanted)
            except BaseException:
                if fresh:
                    self.stop()
                raise
        return True

    def down(self) -> None:
        """Stop every component, the dependent ones first, and leave no process behind."""
        if self.home.path.exists():
            with self.held():
                self.stop()

    def is_alive(self) -> bool:
        """Whether the platform was started, whatever became of its components."""
        return self._supervisor.is_alive()

    def stop(self) -> None:
        """Stop every component, as `down` does, for a caller that holds the home."""
        if self._supervisor.is_alive():
            running = self._supervisor.components()
            for names in _STOP_ORDER:
                if group := [name for name in names if running[name]["pid"]]:
                    self._report(f"stopping {', '.join(group)}")
                    with ThreadPoolExecutor(len(group)) as pool:
                        stops = [pool.submit(self._supervisor.stop_component, name) for name in group]
                        if "scheduler" in group and wait(stops, timeout=_PATIENCE).not_done:
                            self._interrupt_tasks(running["scheduler"]["pid"])
                        for stop in stops:
                            stop.result()
            with suppress(OSError):
                self._supervisor.shut_down()
        processes.end(processes.of(self.home), grace=10)

    def _interrupt_tasks(self, scheduler: int) -> None:
        """Interrupt the running tasks, whose end the scheduler waits for: Airflow records and later repeats them."""
        with suppress(psutil.Error):
            tasks = [task for worker in psutil.Process(scheduler).children() for task in worker.children()]
            for task in tasks:
                task.send_signal(signal.SIGINT)

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        """Stop the broker for the length of a `with` block, for a caller that holds the home."""
        self._supervisor.stop_component("kafka")
        try:
            yield
        finally:
            (self.home.run / "kafka.starts").unlink(missing_ok=True)
            self._earlier = {name: starts(self.home, name) for name in NAMES}
            self._supervisor.start_component("kafka")
            self._until("kafka")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home against a second `up`, `down`, `backup` or `restore` at the same time."""
        lock = FileLock(self.home.path / "platform.lock", mode=0o600)
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            self._report("another ./millrace is at work on the platform; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def status(self, names: Sequence[str] = NAMES) -> list[Health]:
        """The components in the order of their start, or those named; empty when the platform is down."""
        if not self._supervisor.is_alive():
            return []
        known = self._supervisor.components()
        with ThreadPoolExecutor(len(NAMES) + 1) as pool:
            airflow = pool.submit(self._airflow_health).result
            return list(pool.map(lambda name: self._health(name, known[name], airflow), names))

    def environment(self) -> dict[str, str]:
        """Environment variables for a child process that shall work on this platform. Raises UserError before `up`."""
        if "ports" not in self.home.state():
            raise UserError("The platform was never started.", "Run ./millrace up first.")
        return environment.of(self.home)

    def _is_up(self, wanted: list[str]) -> bool:
        healthy = {health.name for health in self.status(wanted) if health.healthy}
        return healthy.issuperset(wanted)

    def _lost_port(self) -> bool:
        """Whether Airflow, which was not started with the services, could not listen on the port chosen then."""
        running = self._supervisor.components()["api-server"]["pid"]
        return not running and not ports.is_free(self.home.state()["ports"]["api"])

    def _start(self, wanted: list[str]) -> None:
        self._earlier = {name: starts(self.home, name) for name in NAMES}
        airflow = [name for name in wanted if name in AIRFLOW]
        self._report("starting PostgreSQL and Kafka")
        self._supervisor.start_component("kafka")
        postgres.initialise(self.home)
        self._supervisor.start_component("postgres")
        migrating = bool(airflow) and self.home.state().get("migrated") != code_fingerprint()
        if airflow:
            # They import themselves, which takes the longest, and wait for the databases; see component.py.
            self._supervisor.import_airflow()
            for name in ("migrate", *airflow) if migrating else airflow:
                self._supervisor.start_component(name)
        self._until("postgres")
        postgres.make_databases(self.home, self.home.state()["ports"]["postgres"])
        ready(self.home).touch()
        self._until("kafka")
        if migrating:
            self._report("migrating the databases")
            self._finish_migration()
            self.home.remember(migrated=code_fingerprint())
        if airflow:
            gate(self.home).touch()
            self._report("waiting for Airflow")
        self._wait(wanted)
        self.home.remember(generation=code_fingerprint())

    def _prepare(self, chosen: dict[str, int]) -> None:
        self.home.remember(ports=chosen, generation=None)
        kafka.prepare(self.home, chosen)
        for file in (gate(self.home), ready(self.home), *self.home.run.glob("*.starts")):
            file.unlink(missing_ok=True)
        self._supervisor.start()

    def _finish_migration(self) -> None:
        end = time.monotonic() + START_SECONDS
        while (process := self._supervisor.components()["migrate"])["pid"]:
            if time.monotonic() > end:
                raise UserError("The migration of the databases does not end.", "See ./millrace logs migrate.")
            time.sleep(0.05)
        if process["exitstatus"]:
            raise UserError(
                f"The databases could not be migrated: {self._last_line('migrate')}.", "See ./millrace logs migrate."
            )

    def _until(self, name: str) -> None:
        """Wait until a service answers; a service that dies again and again is given up at once."""
        end = time.monotonic() + START_SECONDS
        # In a thread of its own: Ctrl-C that comes while the main thread closes a client of Kafka is lost.
        with ThreadPoolExecutor(1) as pool:
            while True:
                try:
                    pool.submit(self._check_service, name, self._supervisor.components()[name]["pid"]).result()
                except UserError as error:
                    if self._tries(name) > _TRIES or time.monotonic() > end:
                        raise UserError(
                            f"{name} does not start: {self._last_line(name)}.", f"See ./millrace logs {name}."
                        ) from error
                    time.sleep(0.05)
                else:
                    return

    def _tries(self, name: str) -> int:
        return starts(self.home, name) - self._earlier[name]

    def _last_line(self, name: str) -> str:
        try:
            lines = (self.home.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1].strip().rstrip(".") if lines else "it says nothing"

    def _wait(self, wanted: list[str]) -> None:
        end = time.monotonic() + START_SECONDS
        ill = self._ill(wanted)
        while ill:
            lost = [name for name in ill if self._tries(name) > _TRIES]
            if lost or time.monotonic() > end:
                name = (lost or ill)[0]
                raise UserError(f"{name} does not start: {self._last_line(name)}.", f"See ./millrace logs {name}.")
            time.sleep(0.1)
            # Asking those that are well again and again would slow the others' start; they are asked once more, last.
            ill = self._ill(ill) or self._ill(wanted)

    def _ill(self, names: list[str]) -> list[str]:
        return [health.name for health in self.status(names) if not health.healthy]

    def _health(self, name: str, info: dict[str, Any], airflow: Callable[[], dict[str, Any]]) -> Health:
        detail, healthy = info["statename"], False
        if info["statename"] in ("RUNNING", "STARTING") and info["pid"]:
            try:
                detail, healthy = self._ask(name, info["pid"], airflow), True
            except Exception as error:  # any failure of a component's own answer is the detail
                detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        uptime = float(info["now"] - info["start"]) if info["pid"] else 0.0
        restarts = max(0, starts(self.home, name) - 1)
        return Health(name, info["statename"], healthy, detail, info["pid"], restarts, uptime)

    def _check_service(self, name: str, pid: int) -> str:
        """The address at which the service answers. Raises UserError when it does not, or somebody else does."""
        port = self.home.state()["ports"]["api" if name == "api-server" else name]
        if not ports.is_listening(pid, port):
            raise UserError(f"it does not listen on port {port}")
        if name == "postgres":
            postgres.check(self.home, port)
        elif name == "kafka":
            kafka.check(port)
        return f"{ports.HOST}:{port}"

    def _ask(self, name: str, pid: int, airflow: Callable[[], dict[str, Any]]) -> str:
        if name in SERVICES:
            return self._check_service(name, pid)
        if name == "api-server":
            self._check_service(name, pid)
            airflow()
            return environment.api_url(self.home)
        part = airflow()[name.replace("-", "_")]
        if part["status"] != "healthy":
            latest = part.get(f"latest_{name.replace('-', '_')}_heartbeat")
            raise UserError(f"its last heartbeat was at {latest}" if latest else "it has not begun to work")
        return "healthy"

    def _airflow_health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{environment.api_url(self.home)}/api/v2/monitor/health", timeout=15) as answer:
            return dict(json.load(answer))
