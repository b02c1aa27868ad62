"""One platform: Kafka, PostgreSQL and Airflow as processes of one home."""

import hashlib
import json
import signal
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from embedded import environment, kafka, ports, postgres, processes, schema_registry
from embedded.component import AIRFLOW, ALL, NAMES, SCHEMA_REGISTRY, created_marker, migrated_marker, starts
from embedded.home import Home
from embedded.polling import wait_until
from embedded.supervisor import START_SECONDS, ProcessInfo, Supervisor
from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT

SERVICES = ("postgres", "kafka")
# A component that has died this often since `up` began is not waited for any longer.
_MAX_RESTARTS = 3
# Seconds that running tasks get to end before they are interrupted.
_TASK_GRACE_S = 2.0

# A component stops before the components that it needs.
_STOP_ORDER = (("scheduler",), ("triggerer", "dag-processor", "api-server"), ("kafka", SCHEMA_REGISTRY), ("postgres",))


@dataclass(frozen=True)
class Health:
    """One component at one moment.

    Attributes:
        state: The state in supervisord: RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL.
        healthy: Whether the component itself answers that it works.
        detail: What is wrong, or the address at which it listens.
        restarts: Restarts since the last `up`.
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
    """A hash of the code, except definitions, and of the user's connections and settings.

    A change of these takes effect only after a restart of the platform.
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
    # With another connection the warehouse may be another database, which has to be migrated.
    digest.update(json.dumps(sorted(environment.overrides().items())).encode())
    return digest.hexdigest()


def needing_registry() -> list[str]:
    """The streams whose records name schemas of the platform's own schema registry."""
    from include.streams import definitions
    from include.streams.definition import REGISTRY

    if "AIRFLOW_CONN_MILLRACE_REGISTRY" in environment.overrides():
        return []
    return [name for name, stream in definitions.find().valid.items() if stream.registry == REGISTRY]


class Platform:
    """The platform of one home.

    Args:
        home: The home's directory; by default the one that the environment names.
        report: Called with a description of each step of `up` and `down`.
    """

    def __init__(self, home: Home | Path | None = None, report: Callable[[str], None] = lambda step: None) -> None:
        self.home = home if isinstance(home, Home) else Home(Path(home).absolute()) if home else Home.current()
        self._report = report
        self._supervisor = Supervisor(self.home)
        self._starts_before: dict[str, int] = {}

    def up(self, components: Iterable[str] | None = None) -> bool:
        """Start the components that are not running, migrate the databases, and wait until everything is healthy.

        A platform that runs other code, such as that from before a `git pull`, is stopped first. Returns False when
        everything was running.

        Args:
            components: What to start; by default everything that the platform has.

        Raises:
            UserError: The platform cannot be started. What this call started is stopped again.
        """
        self.home.prepare()
        if components is None:
            self._add_needed_registry()
        wanted = [name for name in ALL if name in set(self.names if components is None else components)]
        if SCHEMA_REGISTRY in wanted:
            schema_registry.install(self.home.environment)
            self.home.schema_registry.mkdir(mode=0o700, exist_ok=True)
        with self.held():
            self.home.require_restored()
            self.home.clear_staging()
            fresh = not self._supervisor.is_alive()
            if not fresh and self.home.state().get("generation") != code_fingerprint():
                self._report("the running platform has other code or settings, or is only half started; stopping it")
                self.stop()
                fresh = True
            if not fresh and self._is_up(wanted):
                return False
            if not fresh and "api-server" in wanted and self._lost_port():
                self._report(
                    "another program uses the port that was chosen for Airflow; starting again with another port"
                )
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

    def _add_needed_registry(self) -> None:
        """Make a schema registry part of the platform if a stream needs it, unless the user has decided about that."""
        if "schema_registry" in self.home.state():
            return
        streams = needing_registry()
        if not streams:
            return
        named = f"{'stream' if len(streams) == 1 else 'streams'} {', '.join(streams)}"
        self._report(f"adding a schema registry to the platform, for the {named}")
        try:
            schema_registry.install(self.home.environment)
        except UserError as error:
            # The platform starts without it: only these streams wait.
            self._report(f"the schema registry cannot be installed, so the {named} will wait: {error}")
        else:
            self.home.update_state(schema_registry=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The components that the platform has."""
        return ALL if self.home.state().get("schema_registry") else NAMES

    def use_schema_registry(self, wanted: bool) -> None:
        """Make a schema registry part of the platform, from the next `up` on, or stop it."""
        self.home.prepare()
        self.home.update_state(schema_registry=wanted)
        if not wanted and self._supervisor.is_alive():
            self._supervisor.stop_component(SCHEMA_REGISTRY)

    def down(self) -> None:
        """Stop every component, dependent ones first, and end every process of the home."""
        if self.home.path.exists():
            with self.held():
                self.stop()

    def is_alive(self) -> bool:
        """Whether the platform was started, even if its components are not healthy."""
        return self._supervisor.is_alive()

    def stop(self) -> None:
        """Stop every component, as `down` does. The caller must hold the home's lock."""
        if self._supervisor.is_alive():
            running = self._supervisor.components()
            for names in _STOP_ORDER:
                if group := [name for name in names if running[name]["pid"]]:
                    self._report(f"stopping {', '.join(group)}")
                    with ThreadPoolExecutor(len(group)) as pool:
                        stops = [pool.submit(self._supervisor.stop_component, name) for name in group]
                        if "scheduler" in group and wait(stops, timeout=_TASK_GRACE_S).not_done:
                            self._interrupt_tasks(running["scheduler"]["pid"])
                        for stop in stops:
                            stop.result()
            with suppress(OSError):
                self._supervisor.shut_down()
        processes.end(processes.of(self.home), grace=10)

    def _interrupt_tasks(self, scheduler: int) -> None:
        """Interrupt the running tasks, for which the scheduler waits. Airflow records that, and repeats them later."""
        with suppress(psutil.Error):
            tasks = [task for worker in psutil.Process(scheduler).children() for task in worker.children()]
            for task in tasks:
                task.send_signal(signal.SIGINT)

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        """Stop the broker, and the schema registry if there is one, for a `with` block.

        The caller must hold the home's lock. The block ends once the broker answers; the registry takes longer.
        """
        names = ("kafka", SCHEMA_REGISTRY) if SCHEMA_REGISTRY in self.names else ("kafka",)
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(self._supervisor.stop_component, names))
        try:
            yield
        finally:
            for name in names:
                (self.home.run / f"{name}.starts").unlink(missing_ok=True)
            self._starts_before = {name: starts(self.home, name) for name in ALL}
            for name in names:
                self._supervisor.start_component(name)
            self._wait_for_service("kafka")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the home against a second `up`, `down`, `backup` or `restore` at the same time."""
        lock = FileLock(self.home.path / "platform.lock", mode=0o600)
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            self._report("another ./millrace is changing the platform; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def status(self, names: Sequence[str] | None = None) -> list[Health]:
        """The health of the named components, by default of all, in this order. Empty when the platform is down."""
        if not self._supervisor.is_alive():
            return []
        components = self._supervisor.components()
        with ThreadPoolExecutor(len(ALL) + 1) as pool:
            airflow = pool.submit(self._airflow_health).result
            return list(pool.map(lambda name: self._health(name, components[name], airflow), names or self.names))

    def environment(self) -> dict[str, str]:
        """The environment variables of a child process that uses this platform. Raises UserError before `up`."""
        if "ports" not in self.home.state():
            raise UserError(
                f"The platform in {self.home.path} was never started.",
                "Run ./millrace up first.",
                code=Code.PLATFORM_DOWN,
            )
        return environment.of(self.home)

    def _is_up(self, wanted: list[str]) -> bool:
        healthy = {health.name for health in self.status(wanted) if health.healthy}
        return healthy.issuperset(wanted)

    def _lost_port(self) -> bool:
        """Whether another program took Airflow's port after the services were started without Airflow."""
        running = self._supervisor.components()["api-server"]["pid"]
        return not running and not ports.is_free(self.home.state()["ports"]["api"])

    def _start(self, wanted: list[str]) -> None:
        self._starts_before = {name: starts(self.home, name) for name in ALL}
        airflow = [name for name in wanted if name in AIRFLOW]
        self._report("starting PostgreSQL and Kafka")
        self._supervisor.start_component("kafka")
        postgres.initialise(self.home)
        self._supervisor.start_component("postgres")
        migrating = bool(airflow) and self.home.state().get("migrated") != code_fingerprint()
        if airflow:
            # Their imports take the longest. They then wait for the databases; see component.py.
            self._supervisor.import_airflow()
            for name in ("migrate", *airflow) if migrating else airflow:
                self._supervisor.start_component(name)
        self._wait_for_service("postgres")
        postgres.make_databases(self.home, self.home.state()["ports"]["postgres"])
        created_marker(self.home).touch()
        self._wait_for_service("kafka")
        if SCHEMA_REGISTRY in wanted:
            self._supervisor.start_component(SCHEMA_REGISTRY)
        if migrating:
            self._report("migrating the databases")
            self._wait_for_migration()
            self.home.update_state(migrated=code_fingerprint())
        if airflow:
            migrated_marker(self.home).touch()
            self._report("waiting for Airflow")
        self._wait_until_healthy(wanted)
        self.home.update_state(generation=code_fingerprint())

    def _prepare(self, chosen: dict[str, int]) -> None:
        self.home.update_state(ports=chosen, generation=None)
        kafka.prepare(self.home, chosen)
        for file in (migrated_marker(self.home), created_marker(self.home), *self.home.run.glob("*.starts")):
            file.unlink(missing_ok=True)
        self._supervisor.start()

    def _wait_for_migration(self) -> None:
        def is_running() -> bool:
            return self._supervisor.components()["migrate"]["pid"] != 0

        try:
            wait_until(lambda: not is_running(), START_SECONDS, pause=0.05)
        except TimeoutError:
            raise UserError(
                f"The migration of the databases is still running after {START_SECONDS:.0f} s.",
                "Read ./millrace logs migrate.",
                code=Code.MIGRATION_FAILED,
            ) from None
        if self._supervisor.components()["migrate"]["exitstatus"]:
            raise UserError(
                f"The databases could not be migrated: {self._last_line('migrate')}.",
                "Read ./millrace logs migrate.",
                code=Code.MIGRATION_FAILED,
            )

    def _wait_for_service(self, name: str) -> None:
        """Wait until a service answers. Raises UserError early when it has died several times."""

        def answers() -> bool:
            try:
                # In another thread: Ctrl-C that arrives while the main thread closes a client of Kafka is lost.
                pool.submit(self._check_service, name, self._supervisor.components()[name]["pid"]).result()
            except UserError as error:
                if self._restarts(name) > _MAX_RESTARTS:
                    raise self._does_not_start(name) from error
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            try:
                wait_until(answers, START_SECONDS, pause=0.05)
            except TimeoutError as error:
                raise self._does_not_start(name) from error

    def _wait_until_healthy(self, wanted: list[str]) -> None:
        """Wait until all components are healthy. Raises UserError early when one has died several times."""
        unhealthy: list[str] = []

        def are_all_healthy() -> bool:
            nonlocal unhealthy
            # Checks slow down the start of the others, so a healthy component is checked again only at the end.
            unhealthy = (unhealthy and self._unhealthy(unhealthy)) or self._unhealthy(wanted)
            if failed := [name for name in unhealthy if self._restarts(name) > _MAX_RESTARTS]:
                raise self._does_not_start(failed[0])
            return not unhealthy

        try:
            wait_until(are_all_healthy, START_SECONDS, pause=0.1)
        except TimeoutError as error:
            raise self._does_not_start(unhealthy[0]) from error

    def _does_not_start(self, name: str) -> UserError:
        return UserError(
            f"The component {name} does not start: {self._last_line(name)}.",
            f"Read ./millrace logs {name}.",
            code=Code.COMPONENT_FAILED,
        )

    def _restarts(self, name: str) -> int:
        return starts(self.home, name) - self._starts_before[name]

    def _last_line(self, name: str) -> str:
        try:
            lines = (self.home.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1].strip().rstrip(".") if lines else "its log is empty"

    def _unhealthy(self, names: list[str]) -> list[str]:
        return [health.name for health in self.status(names) if not health.healthy]

    def _health(self, name: str, info: ProcessInfo, airflow: Callable[[], dict[str, Any]]) -> Health:
        detail, healthy = info["statename"], False
        if info["statename"] in ("RUNNING", "STARTING") and info["pid"]:
            try:
                detail, healthy = self._check(name, info["pid"], airflow), True
            except UserError as error:
                detail = error.what
            except Exception as error:  # any failure of the check is the detail
                detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        uptime = float(info["now"] - info["start"]) if info["pid"] else 0.0
        restarts = max(0, starts(self.home, name) - 1)
        return Health(name, info["statename"], healthy, detail, info["pid"], restarts, uptime)

    def _check_service(self, name: str, pid: int) -> str:
        """The address at which the service answers. Raises UserError when it does not, or another process does."""
        port = self.home.state()["ports"]["api" if name == "api-server" else name.replace("-", "_")]
        if not ports.is_listening(pid, port):
            raise UserError(f"it does not listen on port {port}", code=Code.COMPONENT_UNREACHABLE)
        if name == "postgres":
            postgres.check(self.home, port)
        elif name == "kafka":
            kafka.check(port)
        elif name == SCHEMA_REGISTRY:
            schema_registry.check(port)
        return f"{ports.HOST}:{port}"

    def _check(self, name: str, pid: int, airflow: Callable[[], dict[str, Any]]) -> str:
        if name in SERVICES or name == SCHEMA_REGISTRY:
            return self._check_service(name, pid)
        if name == "api-server":
            self._check_service(name, pid)
            airflow()
            return environment.api_url(self.home)
        part = airflow()[name.replace("-", "_")]
        if part["status"] != "healthy":
            latest = part.get(f"latest_{name.replace('-', '_')}_heartbeat")
            raise UserError(
                f"its last heartbeat was at {latest}" if latest else "it has sent no heartbeat yet",
                code=Code.COMPONENT_UNREACHABLE,
            )
        return "healthy"

    def _airflow_health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{environment.api_url(self.home)}/api/v2/monitor/health", timeout=15) as answer:
            return dict(json.load(answer))
