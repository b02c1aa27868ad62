"""The process that keeps the components running: supervisord, controlled by XML-RPC on loopback."""

import hashlib
import os
import socket
import subprocess
import sys
import xmlrpc.client
from contextlib import suppress
from typing import Any, TypedDict, cast

from embedded import environment, processes
from embedded.component import ALL
from embedded.home import Home, write_private
from embedded.polling import wait_until
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

# Seconds after which a start has failed. Some machines are slow.
START_SECONDS = 300.0
# Seconds that a component gets to stop before it is killed.
STOP_SECONDS = {
    "postgres": 20,
    "kafka": 20,
    "scheduler": 15,
    "api-server": 5,
    "dag-processor": 5,
    "triggerer": 5,
    "schema-registry": 10,
}

_NOT_RUNNING, _ALREADY_STARTED = 70, 60


class ProcessInfo(TypedDict):
    """What supervisord reports about a component, as far as the platform uses it.

    Attributes:
        statename: RUNNING, STARTING, BACKOFF, STOPPED, EXITED or FATAL.
        pid: 0 when the component is not running.
        start: When it was started last, in seconds since 1970.
        now: The time of the report, in seconds since 1970.
    """

    name: str
    statename: str
    pid: int
    start: int
    now: int
    exitstatus: int


class Supervisor:
    """The supervisor of one home, running or not."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def is_alive(self) -> bool:
        """Whether this home's supervisor answers, and not that of another home on the same port."""
        try:
            return bool(self._rpc().getIdentification() == self._identifier)
        except (OSError, xmlrpc.client.Error, KeyError):
            return False

    def start(self) -> None:
        """Start the supervisor without any component. Raises UserError when it does not answer within 15 s."""
        (self._home.logs / "supervisor").mkdir(mode=0o700, exist_ok=True)
        write_private(self._home.run / "supervisord.conf", self._configuration())
        log = self._home.logs / "supervisor/supervisord.out"
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "embedded.supervisord",
                    "--nodaemon",
                    "-c",
                    "run/supervisord.conf",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self._home.path,
                env=_environment(self._home),
            )
        with suppress(TimeoutError):
            wait_until(lambda: self.is_alive() or process.poll() is not None, 15, pause=0.05)
        if not self.is_alive():
            raise UserError(
                "The supervisor of the components does not start.", f"Read {log}.", code=Code.COMPONENT_FAILED
            )

    def start_component(self, name: str) -> None:
        """Start the component, unless it is running."""
        try:
            self._rpc().startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise

    def import_airflow(self) -> None:
        """Make the supervisor import the modules that Airflow's components share. Other calls wait meanwhile."""
        if sys.platform == "linux":
            self._server(timeout=START_SECONDS).millrace.airflow()

    def stop_component(self, name: str) -> None:
        """Stop the component, if it is running, and wait for its end."""
        try:
            self._rpc().stopProcess(name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise

    def components(self) -> dict[str, ProcessInfo]:
        """supervisord's process information, by component."""
        return {info["name"]: info for info in cast(list[ProcessInfo], self._rpc().getAllProcessInfo())}

    def shut_down(self) -> None:
        """End the supervisor and every component that is still running."""
        self._rpc().shutdown()

    def _rpc(self) -> Any:
        return self._server().supervisor

    def _server(self, timeout: float = 60) -> Any:
        port, password = self._home.state()["ports"]["supervisor"], self._home.secrets["supervisor"]
        return xmlrpc.client.ServerProxy(f"http://millrace:{password}@{HOST}:{port}/RPC2", _TimeoutTransport(timeout))

    @property
    def _identifier(self) -> str:
        return hashlib.sha256(os.fsencode(self._home.path)).hexdigest()

    def _configuration(self) -> str:
        # supervisord expands % and cuts values at ;, so the configuration contains no absolute path: supervisord runs
        # in the home, and the shell of each program takes the interpreter from the environment.
        sections = [
            f"""
            [supervisord]
            identifier = {self._identifier}
            logfile = logs/supervisor/supervisord.log
            logfile_maxbytes = 5MB
            logfile_backups = 2
            umask = 077
            pidfile = run/supervisord.pid
            childlogdir = logs
            {"user = root" if os.geteuid() == 0 else ""}

            [inet_http_server]
            port = {HOST}:{self._home.state()["ports"]["supervisor"]}
            username = millrace
            password = {self._home.secrets["supervisor"]}

            [rpcinterface:supervisor]
            supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

            [rpcinterface:millrace]
            supervisor.rpcinterface_factory = embedded.supervisord:make_preloader

            [program:migrate]
            command = {_command("migrate")}
            environment = {processes.COMPONENT_VARIABLE}="migrate"
            autostart = false
            autorestart = false
            startsecs = 0
            redirect_stderr = true
            stdout_logfile = logs/migrate.log
            stdout_logfile_maxbytes = 10MB
            stdout_logfile_backups = 2
            """
        ]
        for name in ALL:
            sections.append(f"""
            [program:{name}]
            command = {_command(name)}
            environment = {processes.COMPONENT_VARIABLE}="{name}"
            autostart = false
            autorestart = true
            startsecs = 2
            startretries = 1000
            stopsignal = {"INT" if name == "postgres" else "TERM"}
            stopwaitsecs = {STOP_SECONDS[name]}
            killasgroup = true
            redirect_stderr = true
            stdout_logfile = logs/{name}.log
            stdout_logfile_maxbytes = 10MB
            stdout_logfile_backups = 2
            """)
        return "\n".join(line.strip() for section in sections for line in section.splitlines())


class _TimeoutTransport(xmlrpc.client.Transport):
    """A transport that connects within two seconds and waits `timeout` seconds for an answer."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def make_connection(self, host: Any) -> Any:
        connection = super().make_connection(host)
        if connection.sock is None:
            connection.sock = socket.create_connection((connection.host, connection.port), 2)
            connection.sock.settimeout(self._timeout)
        return connection


def _command(name: str) -> str:
    return f"""sh -c 'exec "$MILLRACE_PYTHON" -P -m embedded.component {name}'"""


def _environment(home: Home) -> dict[str, str]:
    return environment.child(home) | {
        "PYTHONUNBUFFERED": "1",
        # Without it, programs that set their process title overwrite the environment, by which we recognize them.
        "SPT_NOENV": "1",
        "MILLRACE_PYTHON": sys.executable,
        processes.COMPONENT_VARIABLE: "supervisor",
        processes.HOME_VARIABLE: str(home.path),
    }
