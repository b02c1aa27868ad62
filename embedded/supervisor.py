"""The process that keeps the components alive: supervisord, spoken to by XML-RPC on loopback."""

import hashlib
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from typing import Any

from embedded import environment, processes
from embedded.component import NAMES
from embedded.home import Home, write_private
from embedded.ports import HOST
from include.errors import UserError

# Seconds after which a start is given up; slow machines are slow.
START_SECONDS = 300.0
# Seconds that a component gets to stop by itself.
STOP_SECONDS = {
    "postgres": 20,
    "kafka": 20,
    "scheduler": 15,
    "api-server": 5,
    "dag-processor": 5,
    "triggerer": 5,
}

_NOT_RUNNING, _ALREADY_STARTED = 70, 60


class Supervisor:
    """The supervisor of one home, running or not."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def is_alive(self) -> bool:
        """Whether this home's supervisor answers; another's, on the same port, does not count."""
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
        end = time.monotonic() + 15
        while not self.is_alive():
            if process.poll() is not None or time.monotonic() > end:
                raise UserError("The supervisor of the components did not start.", f"See {log}.")
            time.sleep(0.05)

    def start_component(self, name: str) -> None:
        """Have the component started; does nothing when it runs."""
        try:
            self._rpc().startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise

    def import_airflow(self) -> None:
        """Have the supervisor import what Airflow's components share; it answers nobody meanwhile."""
        if sys.platform == "linux":
            self._server(patience=START_SECONDS).millrace.airflow()

    def stop_component(self, name: str) -> None:
        """Stop the component and wait for its end; does nothing when it is stopped."""
        try:
            self._rpc().stopProcess(name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise

    def components(self) -> dict[str, dict[str, Any]]:
        """supervisord's process information, by component."""
        return {info["name"]: info for info in self._rpc().getAllProcessInfo()}

    def shut_down(self) -> None:
        """End the supervisor, and with it every component that still runs."""
        self._rpc().shutdown()

    def _rpc(self) -> Any:
        return self._server().supervisor

    def _server(self, patience: float = 60) -> Any:
        port, password = self._home.state()["ports"]["supervisor"], self._home.secrets["supervisor"]
        return xmlrpc.client.ServerProxy(f"http://millrace:{password}@{HOST}:{port}/RPC2", _Impatient(patience))

    @property
    def _identifier(self) -> str:
        return hashlib.sha256(os.fsencode(self._home.path)).hexdigest()

    def _configuration(self) -> str:
        # supervisord expands % and cuts at ; in its values, so that no path is named here: its own directory is the
        # home, and the shell of each program takes the interpreter from the environment.
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
        for name in NAMES:
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


class _Impatient(xmlrpc.client.Transport):
    """A transport that connects within two seconds and waits `patience` seconds for an answer."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience

    def make_connection(self, host: Any) -> Any:
        connection = super().make_connection(host)
        if connection.sock is None:
            connection.sock = socket.create_connection((connection.host, connection.port), 2)
            connection.sock.settimeout(self._patience)
        return connection


def _command(name: str) -> str:
    return f"""sh -c 'exec "$MILLRACE_PYTHON" -P -m embedded.component {name}'"""


def _environment(home: Home) -> dict[str, str]:
    return environment.child(home) | {
        "PYTHONUNBUFFERED": "1",
        # Without it, programs that set their process title write it over the environment by which we know them.
        "SPT_NOENV": "1",
        "MILLRACE_PYTHON": sys.executable,
        processes.COMPONENT_VARIABLE: "supervisor",
        processes.HOME_VARIABLE: str(home.path),
    }
