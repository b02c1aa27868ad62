"""The promises of the embedded platform, tested on real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import psutil
import pytest

from embedded import component, ports, postgres, processes
from embedded.component import NAMES
from embedded.home import Home
from embedded.platform import SERVICES, Platform
from embedded.supervisor import Supervisor
from include.project import ROOT
from tests.polling import until

LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Home]:
    """A second home, in a path with a space, quotes and 120 characters."""
    path = tmp_path / 'it\'s a "home" 100%'
    path = path / ("x" * max(1, 119 - len(str(path))))
    yield Home(path)
    Platform(path).down()
    assert processes.of(Home(path)) == []


def run(*arguments: str, home: Home, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `./millrace ARGUMENTS` as a user's shell does."""
    return subprocess.run(
        [str(ROOT / "millrace"), *arguments],
        env=os.environ | {"MILLRACE_HOME": str(home.path)} | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def python(code: str, home: Home, *prefix: str) -> subprocess.Popen[str]:
    """Start a Python process with a variable `platform`, the platform of the home."""
    program = f"from embedded.platform import *\nplatform = Platform({str(home.path)!r})\n{code}"
    return subprocess.Popen([*prefix, sys.executable, "-c", program], text=True, stdout=-1, stderr=-1)


def initdb(parent: int) -> list[psutil.Process]:
    """The running initdb processes below a process, suspended so that they do not end."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() == "initdb":
                child.suspend()
                found.append(child)
    return found


def pids(platform: Platform) -> dict[str, int]:
    return {health.name: health.pid for health in platform.status()}


def healthy(platform: Platform) -> set[str]:
    return {health.name for health in platform.status() if health.healthy}


class TestWhole:
    """On a platform with all components."""

    def test_everything_is_healthy_and_a_second_up_changes_nothing(
        self, airflow_platform: Platform, alone: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Alone, because other tests delay the heartbeats on which health depends."""
        until("all components are healthy", lambda: healthy(airflow_platform) == set(NAMES))
        with alone():
            until("all components are healthy", lambda: healthy(airflow_platform) == set(NAMES))
            before = pids(airflow_platform)
            assert healthy(airflow_platform) == set(NAMES)
            assert airflow_platform.up() is False
            assert pids(airflow_platform) == before
        assert {process.pid for process in processes.of(airflow_platform.home)} >= set(before.values())

    def test_only_loopback_listens(self, airflow_platform: Platform) -> None:
        own = {process.pid for process in processes.of(airflow_platform.home)}
        connections = psutil.net_connections("inet")
        listening = {tuple(one.laddr) for one in connections if one.pid in own and one.status == psutil.CONN_LISTEN}
        assert {address for address, _ in listening} <= LOOPBACK
        wanted = {
            name: port for name, port in airflow_platform.home.state()["ports"].items() if name != "schema_registry"
        }
        assert {port for _, port in listening} >= set(wanted.values())

    def test_secrets_are_readable_by_the_user_only(self, airflow_platform: Platform) -> None:
        home = airflow_platform.home
        for file in ("secrets.json", "passwords.json", "state.json", "run/supervisord.conf"):
            assert stat.S_IMODE((home.path / file).stat().st_mode) == 0o600, file
        for directory in (home.path, home.postgres, home.logs, home.run, home.airflow):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700, directory
        assert len(set(home.secrets.values())) == len(home.secrets)
        commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert not [command for command in commands if any(secret in command for secret in home.secrets.values())]

    def test_the_databases_are_separate(self, airflow_platform: Platform) -> None:
        home = airflow_platform.home
        done = run("psql", "-c", "SELECT current_user, current_database()", "-At", home=home)
        assert done.stdout.strip() == "warehouse|warehouse"
        done = run("psql", "-d", "airflow", "-c", "SELECT 1", home=home)
        assert done.returncode == 2
        assert "permission denied for database" in done.stderr

    def test_a_password_that_a_user_sets_is_stored_with_iterations(self, airflow_platform: Platform) -> None:
        home = airflow_platform.home
        with closing(postgres.connect(home, home.state()["ports"]["postgres"])) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE ROLE somebody PASSWORD 'secret'")
            cursor.execute("SELECT rolname, split_part(rolpassword, ':', 1) FROM pg_authid WHERE rolpassword > ''")
            stored = {name: password.split("$")[1] for name, password in cursor.fetchall()}
            cursor.execute("DROP ROLE somebody")
        assert stored == {"postgres": "1", "airflow": "1", "warehouse": "1", "somebody": "4096"}

    def test_status_prints_json(self, airflow_platform: Platform) -> None:
        until("status succeeds", lambda: run("status", home=airflow_platform.home).returncode == 0)
        status = json.loads(run("status", "--json", home=airflow_platform.home).stdout)
        assert {part["name"]: part["healthy"] for part in status["components"]} == dict.fromkeys(NAMES, True)
        assert status["addresses"]["airflow"].startswith("http://127.0.0.1:")
        assert {type(status["lag"]), type(status["last_runs"])} == {list}

    def test_other_tools_are_connected(self, airflow_platform: Platform) -> None:
        exports = run("env", home=airflow_platform.home).stdout
        shell = f'{exports}\n"{sys.executable}" -m airflow connections get millrace_kafka -o plain'
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
        assert str(airflow_platform.home.state()["ports"]["kafka"]) in done.stdout, done.stderr

    def test_python_has_the_packages_and_the_connections(self, airflow_platform: Platform, tmp_path: Path) -> None:
        program = "from include.registry import champion\nfrom include.warehouse.connection import connect\n"
        program += "import sys; connect(); print(sys.argv[1:], champion.__name__)"
        (tmp_path / "script.py").write_text(program)
        for arguments in (("-c", program), (str(tmp_path / "script.py"),)):
            done = run("python", *arguments, "--help", "-x", home=airflow_platform.home)
            assert done.stdout == "['--help', '-x'] champion\n", done.stderr
        failing = run("python", "-c", "import sys; sys.exit(7)", home=airflow_platform.home)
        assert failing.returncode == 7

    def test_env_makes_a_shell_use_the_same_python(self, airflow_platform: Platform) -> None:
        exports = run("env", home=airflow_platform.home).stdout
        program = "from include.registry import champion; from include.warehouse.connection import connect; connect()"
        shell = f"{exports}\npython -c '{program}' && command -v python"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.split()[-1]).parent == airflow_platform.home.environment / "bin"

    def test_every_killed_component_is_restarted(self, airflow_platform: Platform) -> None:
        before = {health.name: health for health in airflow_platform.status()}
        workers = psutil.Process(before["scheduler"].pid).children()
        for health in before.values():
            os.kill(health.pid, signal.SIGKILL)

        def are_restarted() -> bool:
            after = {health.name: health for health in airflow_platform.status()}
            return all(after[name].healthy and after[name].pid != before[name].pid for name in NAMES)

        until("all components are restarted", are_restarted, 180)
        after = {health.name: health for health in airflow_platform.status()}
        assert all(after[name].restarts > before[name].restarts for name in NAMES)
        assert not any(worker.is_running() for worker in workers)
        assert "restarted" in run("status", home=airflow_platform.home).stdout

    def test_up_repairs_a_platform_whose_supervisor_was_killed(self, airflow_platform: Platform) -> None:
        home = airflow_platform.home
        before = processes.of(home)
        os.kill(psutil.Process(pids(airflow_platform)["kafka"]).ppid(), signal.SIGKILL)
        assert airflow_platform.status() == []
        assert run("status", home=home).returncode == 1
        assert airflow_platform.up() is True
        # For a few seconds, the heartbeat of the killed scheduler counts as that of the new one.
        until("all components are healthy", lambda: healthy(airflow_platform) == set(NAMES))
        assert not any(process.is_running() for process in before)


class TestServices:
    """On Kafka and PostgreSQL only, in a second home."""

    def test_two_platforms_keep_their_data_and_ports(self, services: Platform, elsewhere: Home) -> None:
        platform = Platform(elsewhere)
        platform.up(SERVICES)
        first, second = services.home.state()["ports"], elsewhere.state()["ports"]
        listening = ("kafka", "kafka_controller", "postgres", "supervisor")
        assert not {first[name] for name in listening} & {second[name] for name in listening}
        assert healthy(services) >= set(SERVICES) == healthy(platform)

        with closing(postgres.connect(elsewhere, second["postgres"])) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        platform.down()
        assert processes.of(elsewhere) == []
        # After a reboot, a pid file names the process of another program.
        (elsewhere.run / "supervisord.pid").write_text(f"{os.getpid()}\n")
        platform.up(SERVICES)
        assert elsewhere.state()["ports"] == second
        with closing(postgres.connect(elsewhere, second["postgres"])) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT answer FROM kept")
            assert cursor.fetchall() == [(42,)]

    def test_airflow_gets_another_port_when_its_port_was_taken_meanwhile(self, elsewhere: Home) -> None:
        platform = Platform(elsewhere)
        platform.up(SERVICES)
        chosen = elsewhere.state()["ports"]["api"]
        with socket.socket() as taken:
            # Another platform may have taken it already.
            with suppress(OSError):
                taken.bind(("127.0.0.1", chosen))
                taken.listen()
            platform.up([*SERVICES, "api-server"])
            assert elsewhere.state()["ports"]["api"] != chosen
        assert "api-server" in healthy(platform)

    def test_the_port_of_a_component_that_is_down_stays_reserved(self, elsewhere: Home) -> None:
        platform = Platform(elsewhere)
        platform.up(SERVICES)
        Supervisor(elsewhere).stop_component("postgres")
        with ports.held(elsewhere.state()["ports"]) as others:
            assert not set(others.values()) & set(elsewhere.state()["ports"].values())
        platform.down()
        with ports.held(elsewhere.state()["ports"]) as own:
            assert own == elsewhere.state()["ports"]

    def test_an_ordinary_user_can_run_the_platform(self, elsewhere: Home) -> None:
        prefix: list[str] = []
        if os.geteuid() == 0:
            # A user who can enter root's directories, because the tests may be in one.
            prefix = postgres.as_server_user()
            for directory in (elsewhere.path.parent, elsewhere.path.parent.parent):
                directory.mkdir(exist_ok=True)
                directory.chmod(0o777)
        ordinary = python("import os; print(os.geteuid()); platform.up(SERVICES); platform.down()", elsewhere, *prefix)
        out, errors = ordinary.communicate(timeout=60)
        assert ordinary.returncode == 0, errors
        assert out.strip() != "0"
        assert {path.owner() for path in elsewhere.path.iterdir()} == {elsewhere.path.owner()} != {"root"}

    def test_up_succeeds_after_a_killed_up(self, elsewhere: Home) -> None:
        starting = python("platform.up(SERVICES)", elsewhere)
        orphans: list[psutil.Process] = []
        while not orphans and starting.poll() is None:
            orphans = initdb(starting.pid)
        starting.kill()
        starting.communicate()
        assert orphans
        assert Platform(elsewhere).up(SERVICES) is True
        assert not any(process.is_running() for process in orphans)
        assert healthy(Platform(elsewhere)) == set(SERVICES)

    def test_ctrl_c_stops_what_up_has_started(self, elsewhere: Home) -> None:
        # A process in the background of a shell ignores SIGINT, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        starting = subprocess.Popen(
            [str(ROOT / "millrace"), "up"],
            env=os.environ | {"MILLRACE_HOME": str(elsewhere.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        until("the scheduler starts", lambda: component.starts(elsewhere, "scheduler"))
        starting.send_signal(signal.SIGINT)
        _, errors = starting.communicate(timeout=60)
        assert starting.returncode == 130, errors
        assert errors.splitlines()[-1].endswith("[command-interrupted]")
        assert processes.of(elsewhere) == []

    def test_a_configured_port_that_is_in_use_is_named(self, elsewhere: Home) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = run("up", home=elsewhere, MILLRACE_PORT_KAFKA=str(port))
        assert done.returncode == 1
        assert "[port-in-use]" in done.stderr
        assert str(port) in done.stderr and "MILLRACE_PORT_KAFKA" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert processes.of(elsewhere) == []

    def test_a_service_that_cannot_start_is_named(self, elsewhere: Home) -> None:
        Platform(elsewhere).up(SERVICES)
        Platform(elsewhere).down()
        done = run("airflow", "dags", "list", home=elsewhere)
        assert done.returncode == 1
        assert done.stderr.startswith("millrace: ") and done.stderr.endswith(" [platform-down]\n")
        assert len(done.stderr.splitlines()) == 1
        assert run("airflow", "version", home=elsewhere).returncode == 0
        (elsewhere.postgres / "postgresql.conf").write_text("shared_buffers = 'plenty'\n")
        done = run("up", home=elsewhere)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("millrace: The component postgres") and last.endswith("[component-failed]")
        assert "shared_buffers" in last or "configuration file" in last
        assert processes.of(elsewhere) == []


def test_a_home_that_cannot_be_written_is_named() -> None:
    done = run("up", home=Home(Path("/proc/millrace")), MILLRACE_ENV=os.environ["MILLRACE_ENV"])
    assert done.returncode == 1
    assert "/proc/millrace" in done.stderr and done.stderr.endswith(" [path-not-writable]\n")
    assert len(done.stderr.splitlines()) == 1


def test_commands_before_the_first_up_name_it(tmp_path: Path) -> None:
    for command in ("psql", "env", "airflow", "python"):
        done = run(command, home=Home(tmp_path))
        assert done.returncode == 1
        assert done.stderr.endswith("Run ./millrace up first. [platform-down]\n")
        assert str(tmp_path) in done.stderr and len(done.stderr.splitlines()) == 1
    assert run("status", home=Home(tmp_path)).stdout == "down (./millrace up starts it)\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_named() -> None:
    done = run("upp", home=Home.current())
    assert done.returncode == 2
    assert "'upp'" in done.stderr and done.stderr.endswith(" [invalid-usage]\n")
