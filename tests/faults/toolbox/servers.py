"""The servers of one test session, which tests kill, stop and start again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from embedded import kafka, ports, postgres, processes, schema_registry
from embedded.home import Home
from embedded.ports import HOST
from include.errors import UserError
from include.project import ROOT
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

START_S = 120.0


# Below the range that Linux uses for outgoing connections, which could take a stopped server's port.
_PORTS = range(20_000, 32_000)
_held = ports.Hold()


def free_port() -> int:
    """A port that no process listens on, and that no other test session gets while this one runs."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if ports.is_free(port) and _held.acquire(port):
            return port
    raise AssertionError("no port is free")


class Server:
    """One process with its data directory. Subclasses define how to start it and when it answers.

    Attributes:
        starts: The number of its starts.
    """

    name: str

    def __init__(self, home: Home) -> None:
        self.home = home
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self, wait: bool = True) -> None:
        """Starts the process and, by default, waits until it answers."""
        self.starts += 1
        self.home.logs.mkdir(parents=True, exist_ok=True)
        with open(self.home.logs / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ
                | {processes.HOME_VARIABLE: str(self.home.path), processes.COMPONENT_VARIABLE: self.name},
                start_new_session=True,
            )
        if wait:
            self.wait()

    def ensure(self) -> None:
        """Starts the server if it does not run, and waits until it answers."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        else:
            self.wait()

    def wait(self) -> None:
        """Waits until the server answers."""
        until(f"{self.name} answers", self.answers, START_S)

    def end(self, number: signal.Signals) -> None:
        """Sends a signal that ends the server, and waits until all its processes have ended."""
        assert self._process is not None
        children = self._children()
        self._process.send_signal(number)
        self._process.wait(60)
        # A new server refuses to start until the children of a killed one have noticed its end.
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, f"{self.name} left {alive}"

    def stop(self) -> None:
        """Stops the server in an orderly way, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        self.end(signal.SIGKILL)

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)


class Broker(Server):
    """Apache Kafka, one node, with two listeners: ``direct``, and one whose advertised address is a proxy's.

    Args:
        advertised: The proxy's port; clients that bootstrap there stay there.
    """

    name = "kafka"

    def __init__(self, home: Home, advertised: int) -> None:
        super().__init__(home)
        self.advertised = advertised
        self.port, self.behind_proxy, self._controller = free_port(), free_port(), free_port()

    @property
    def direct(self) -> str:
        """The bootstrap address without the proxy."""
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        kafka.prepare(self.home, {"kafka": self.port, "kafka_controller": self._controller})
        with open(self.home.run / "kafka.properties", "a") as properties:
            for name, value in self._own().items():
                properties.write(f"{name}={value}\n")
        return kafka.command(self.home)

    def answers(self) -> bool:
        try:
            kafka.check(self.port)
        except UserError:
            return False
        return True

    def replace(self) -> None:
        """Replaces the cluster by an empty one with other ids at the same address."""
        self.stop()
        shutil.rmtree(self.home.kafka)
        self.home.kafka.mkdir()
        self.start()

    def truncate(self, topic: str, partition: int, size: int) -> None:
        """Cuts the end of a log, as the election of a replica that lagged would; the broker must be stopped.

        Args:
            size: Bytes of the log's only segment to keep.
        """
        log = self.home.kafka / f"{topic}-{partition}"
        for file in log.iterdir():
            if file.suffix in (".index", ".timeindex", ".snapshot", ".txnindex"):
                file.unlink()
        os.truncate(log / "00000000000000000000.log", size)
        for checkpoint in self.home.kafka.glob("*-checkpoint"):
            checkpoint.unlink()
        # Without this file the broker checks its logs.
        (self.home.kafka / ".kafka_cleanshutdown").unlink(missing_ok=True)

    def segment(self, topic: str, partition: int) -> Path:
        """The first segment of a partition's log."""
        return self.home.kafka / f"{topic}-{partition}" / "00000000000000000000.log"

    def _own(self) -> dict[str, str]:
        inside = f"PLAINTEXT://{self.direct},PROXIED://{HOST}"
        return {
            "listeners": f"{inside}:{self.behind_proxy},CONTROLLER://{HOST}:{self._controller}",
            "advertised.listeners": f"{inside}:{self.advertised}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            # Kafka's default. The tests show that describing a topic does not create it.
            "auto.create.topics.enable": "true",
            # Things that take minutes by default must happen during a test.
            "log.initial.task.delay.ms": "200",
            "log.retention.check.interval.ms": "300",
            "log.cleaner.backoff.ms": "200",
            "log.segment.delete.delay.ms": "100",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        }


class Registry(Server):
    """A schema registry."""

    name = "schema-registry"

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.port = free_port()

    @property
    def url(self) -> str:
        """The address of its API."""
        return schema_registry.url(self.port)

    def command(self) -> list[str]:
        schema_registry.install(self.home.environment)
        self.home.schema_registry.mkdir(mode=0o700, exist_ok=True)
        self.home.update_state(ports={**self.home.state().get("ports", {}), "schema_registry": self.port})
        return schema_registry.command(self.home)

    def answers(self) -> bool:
        try:
            schema_registry.check(self.port)
        except UserError:
            return False
        return True

    def addresses(self) -> set[str]:
        """The addresses of this machine on which it listens."""
        assert self._process is not None
        sockets = psutil.Process(self._process.pid).net_connections()
        return {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}

    def freeze(self) -> None:
        """Sends SIGSTOP: it accepts connections, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Sends SIGCONT."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)


class Database(Server):
    """PostgreSQL."""

    name = "postgres"

    def __init__(self, home: Home, **settings: str) -> None:
        super().__init__(home)
        self.port = free_port()
        self._settings = settings

    def initialise(self) -> None:
        """Creates the data directory and the roles."""
        postgres.initialise(self.home)
        self.start()
        postgres.make_databases(self.home, self.port)

    def command(self) -> list[str]:
        own = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self.home.update_state(ports={"postgres": self.port})
        return [*postgres.command(self.home), *own]

    def answers(self) -> bool:
        try:
            postgres.check(self.home, self.port)
        except UserError:
            return False
        return True

    def stop(self) -> None:
        """Shuts the server down in fast mode, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGINT)

    def abandon(self) -> None:
        """Shuts the server down in immediate mode, which leaves the state of a crash."""
        self.end(signal.SIGQUIT)

    def superuser(self, database: str = "postgres") -> Connection:
        """A connection without a proxy, in autocommit."""
        return postgres.connect(self.home, self.port, database)

    def execute(self, statement: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Executes a statement as superuser, without a proxy."""
        with closing(self.superuser(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def set(self, **settings: str | None) -> None:
        """Changes settings of the running server; None restores the initial value."""
        with closing(self.superuser()) as connection, connection.cursor() as cursor:
            for name, value in settings.items():
                cursor.execute(
                    f"ALTER SYSTEM SET {name} = %s" if value else f"ALTER SYSTEM RESET {name}", value and (value,)
                )
            cursor.execute("SELECT pg_reload_conf()")
