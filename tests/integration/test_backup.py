"""A platform continues from its backup: every proof passes again, and new events land once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from embedded import backup, postgres, processes, restore
from embedded.home import Home
from embedded.platform import SERVICES, Platform
from include.datasets import definitions as datasets
from include.error_codes import Code
from include.landing import proof
from include.landing.drain import drain
from include.promotion import evaluation_queue
from include.registry import champion_history
from include.streams import definitions as streams
from include.streams import produce
from include.streams.definition import Stream
from include.training.verification import verify_run
from include.warehouse.connection import connect, connected
from include.warehouse.migrations import migrate
from tests.errors import raises
from tests.integration.registry import seal, train
from tests.integration.test_platform import run

EVENTS = 2_000


@dataclass(frozen=True)
class BackedUp:
    """A home that was backed up while events arrived, and its state at that time.

    Attributes:
        run: A training run that made a champion.
        champion: The champion in the registry.
        landed: Events that landed before the backup began.
    """

    home: Home
    file: Path
    run: int
    champion: object
    landed: int


def stream() -> Stream:
    """The stream payments with a short quiet time."""
    return replace(streams.get("payments"), quiet="1 second")


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home of a second platform."""
    home = Home(tmp_path_factory.mktemp("backup") / "home")
    yield home
    Platform(home.path).down()
    assert processes.of(home) == []


@pytest.fixture(scope="module")
def backed_up(services: Platform, own_home: Home) -> Iterator[BackedUp]:
    """The backup. During the fixture, this process is connected to the second platform instead of ``services``."""
    platform = Platform(own_home)
    platform.up(SERVICES)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        migrate()
        digits = datasets.get("digits")
        number = train(digits, seal(digits))
        evaluation_queue.evaluate_pending_runs(digits)
        payments = stream()
        produce.produce(payments, EVENTS)
        landed = drain(payments, "test").landed
        with connected() as connection:
            champion = champion_history.current(connection, "digits")
        file = own_home.path.parent / "all.backup"
        ended = threading.Event()
        draining = threading.Thread(target=land_until, args=(ended,))
        draining.start()
        try:
            backup.make(platform, file, lambda step: None)
        finally:
            ended.set()
            draining.join()
        yield BackedUp(own_home, file, number, champion, landed)


def land_until(ended: threading.Event) -> None:
    """Produce and land events until ``ended``. They wait while the broker is stopped."""
    payments = stream()
    seed = 1
    while not ended.is_set():
        produce.produce(payments, 200, seed=seed)
        drain(payments, "meanwhile")
        seed += 1


def up(home: Home) -> Platform:
    """Starts the second platform again and connects this process to it: meanwhile another may have taken its ports."""
    platform = Platform(home.path)
    platform.up(SERVICES)
    os.environ.update(platform.environment())
    return platform


def count() -> int:
    with connected() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM landing.payments")
        (found,) = cursor.fetchone() or (0,)
        return int(found)


def change_times(home: Home) -> dict[str, float]:
    """The change times of the files that a restore replaces."""
    return {name: (home.path / name).stat().st_ctime for name in ("postgres", "kafka", "secrets.json")}


def test_a_platform_continues_from_a_backup_made_while_events_arrived(backed_up: BackedUp) -> None:
    assert stat.S_IMODE(backed_up.file.stat().st_mode) == 0o600
    assert run("reset", "--yes", home=backed_up.home).returncode == 0
    assert not backed_up.home.postgres.exists()
    done = run("restore", str(backed_up.file), home=backed_up.home)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in backed_up.home.path.glob("*.new")) == []
    up(backed_up.home)

    payments = stream()
    with connected() as connection:
        before = count()
        assert before >= backed_up.landed == EVENTS
        assert proof.prove(connection, payments).wrong == []
        assert champion_history.current(connection, "digits") == backed_up.champion
        assert verify_run(backed_up.run, "test").outcome == "identical"

        drain(payments, "after")
        produce.produce(payments, 500, seed=99)
        landed = drain(payments, "after").landed
        assert landed == 500
        found = proof.prove(connection, payments)
        assert found.wrong == []
        assert found.compared == count()
        seal(datasets.get("digits"), rows=600, seed=3)


def test_a_platform_that_is_down_is_backed_up(backed_up: BackedUp, tmp_path: Path) -> None:
    platform = up(backed_up.home)
    rows = count()
    platform.down()
    file = tmp_path / "down.backup"
    done = run("backup", str(file), home=backed_up.home)
    assert done.returncode == 0, done.stderr
    other = Home(tmp_path / "other")
    assert run("restore", str(file), home=other).returncode == 0
    assert "schema_registry" not in other.state(), "the next up decides whether a stream needs one"
    restored = Platform(other.path)
    restored.up(SERVICES)
    try:
        with closing(postgres.connect(other, other.state()["ports"]["postgres"], "warehouse")) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT count(*) FROM landing.payments")
            assert cursor.fetchone() == (rows,)
    finally:
        restored.down()


def test_a_damaged_backup_changes_nothing(backed_up: BackedUp, tmp_path: Path) -> None:
    whole = backed_up.file.read_bytes()
    before = change_times(backed_up.home)
    for content, reason in (
        (whole[: len(whole) // 2], "cut off"),
        (whole[:-1], "cut off"),
        (whole[:5000] + b"?" + whole[5001:], "altered"),
        (b"foreign", "not a complete backup"),
    ):
        file = tmp_path / "file"
        file.write_bytes(content)
        done = run("restore", str(file), "--yes", home=backed_up.home)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.endswith("[backup-corrupt]") and str(file) in last and reason in last
        assert "Traceback" not in done.stderr
    assert change_times(backed_up.home) == before


def test_a_backup_of_a_newer_release_is_rejected(backed_up: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, raises(Code.BACKUP_INCOMPATIBLE, backed_up.file, "0004_registry"):
        patch.setattr(backup, "revisions", lambda: ["0001_position"])
        restore.check(backed_up.file, lambda step: None)
    older = backup.versions() | {"kafka": "4.2.9"}
    with monkeypatch.context() as patch, raises(Code.BACKUP_INCOMPATIBLE, backed_up.file, "kafka"):
        patch.setattr(backup, "versions", lambda: older)
        restore.check(backed_up.file, lambda step: None)
    later = backup.versions() | {"postgres": "19.1"}
    with monkeypatch.context() as patch, raises(Code.BACKUP_INCOMPATIBLE, backed_up.file, "PostgreSQL 19.1"):
        patch.setattr(backup, "versions", lambda: later)
        restore.check(backed_up.file, lambda step: None)


def test_a_restore_asks_before_it_replaces_data(backed_up: BackedUp) -> None:
    before = change_times(backed_up.home)
    done = run("restore", str(backed_up.file), home=backed_up.home)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].endswith("[command-interrupted]")
    assert "Replace every topic, database and password" in done.stdout
    assert change_times(backed_up.home) == before


def test_an_unsuitable_target_is_rejected(backed_up: BackedUp, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    done = run("backup", str(there), home=backed_up.home)
    assert "[file-exists]" in done.stderr and str(there) in done.stderr
    assert there.read_text() == "mine"
    assert "[backup-inside-home]" in run("backup", str(backed_up.home.path / "file"), home=backed_up.home).stderr
    assert "[nothing-to-back-up]" in run("backup", str(tmp_path / "no"), home=Home(tmp_path / "none")).stderr


KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from embedded import backup, backup_file, restore
from embedded.platform import Platform
def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)
home, file = map(Path, sys.argv[1:])
"""
IN_BACKUP = "backup_file.os.fsync = die\nbackup.make(Platform(home), file, print)"
IN_UNPACKING = "backup_file.os.fsync = die\nrestore.make(Platform(home), file, restore.check(file, print), print)"
AFTER_WAREHOUSE = "restore._put_in_place = die\nrestore.make(Platform(home), file, restore.check(file, print), print)"
IN_PLACE = "Path.rename = die\nrestore.make(Platform(home), file, restore.check(file, print), print)"


def killed(code: str, home: Home, file: Path) -> None:
    """Run code that kills itself."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED + code, str(home.path), str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr


def test_a_killed_backup_or_restore_is_repeated(backed_up: BackedUp, tmp_path: Path) -> None:
    Platform(backed_up.home.path).down()
    home = Home(tmp_path / "home")
    file = tmp_path / "killed.backup"
    killed(IN_BACKUP, backed_up.home, file)
    assert [path.name for path in tmp_path.iterdir()] == ["killed.backup.partial"]
    assert run("backup", str(file), home=backed_up.home).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["killed.backup"]

    killed(IN_UNPACKING, home, file)
    assert not home.postgres.exists()
    assert not home.pending_restore.exists()
    killed(IN_PLACE, home, file)
    for command in ("up", "backup"):
        done = run(command, *([str(tmp_path / "no")] if command == "backup" else []), home=home)
        assert done.returncode == 1
        assert "[restore-interrupted]" in done.stderr
        assert str(file) in done.stderr and str(home.path) in done.stderr
    assert run("restore", str(file), "--yes", home=home).returncode == 0
    platform = Platform(home.path)
    assert platform.up(SERVICES)
    platform.down()


@pytest.mark.timeout(600)
def test_a_warehouse_on_the_users_own_server(backed_up: BackedUp, services: Platform, tmp_path: Path) -> None:
    """The server of the other tests serves as the user's own."""
    port = services.home.state()["ports"]["postgres"]
    with closing(postgres.connect(services.home, port)) as server, server.cursor() as cursor:
        for name in ("own", "own_again"):
            cursor.execute(f"CREATE DATABASE {name} OWNER warehouse")
    address = {"host": "127.0.0.1", "port": port, "login": "warehouse", "password": services.home.secrets["warehouse"]}

    def own(name: str) -> str:
        return json.dumps({"conn_type": "postgres", "schema": name, **address})

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", own("own"))
        migrate()
        with connected() as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO millrace.landing_gap VALUES (DEFAULT, 'mine', 1, 0, 0, 0, 'lost', 'me')")
            connection.commit()
        file = tmp_path / "own.backup"
        done = run("backup", str(file), home=backed_up.home, MILLRACE_CONN_POSTGRES=own("own"))
        assert done.returncode == 0, done.stderr
        home = Home(tmp_path / "home")
        done = run("restore", str(file), "--yes", home=home)
        assert "[backup-needs-warehouse]" in done.stderr and "MILLRACE_CONN_POSTGRES" in done.stderr
        patch.setenv("MILLRACE_CONN_POSTGRES", own("missing"))
        done = run("restore", str(file), "--yes", home=home)
        assert "[postgres-unreachable]" in done.stderr and '"missing"' in done.stderr
        assert not home.pending_restore.exists() and not home.postgres.exists()
        patch.setenv("MILLRACE_CONN_POSTGRES", own("own_again"))
        killed(AFTER_WAREHOUSE, home, file)
        assert "[restore-interrupted]" in run("up", home=home).stderr
        for _ in range(2):
            done = run("restore", str(file), "--yes", home=home)
            assert done.returncode == 0, done.stderr
        patch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", own("own_again"))
        with closing(connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT stream FROM millrace.landing_gap")
            assert cursor.fetchall() == [("mine",)]
    assert os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"] != own("own_again")
