"""E: PostgreSQL crashes, refuses, blocks, fills up or fails over. A batch lands as a whole, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embedded import postgres
from embedded.home import Home
from include.landing import maintenance, replay, retry
from include.landing.replay_selection import Wanted
from tests.faults.conftest import make_template, stage_of
from tests.faults.toolbox import tampering
from tests.faults.toolbox.events import READINGS
from tests.faults.toolbox.pooler import Pooler
from tests.faults.toolbox.servers import Database
from tests.faults.toolbox.stage import Stage, World
from tests.polling import until

MOMENTS = {
    "before_begin": "client query BEGIN",
    "after_compare_and_set": "server done WITH asked",
    "mid_copy": "client copy rest of COPY .?landing",
    "before_commit": "client query COMMIT",
    "after_commit": "server done COMMIT",
}


def at_a_moment(stage: Stage, moment: str, happens: Callable[[], None]) -> None:
    """Lets something happen to PostgreSQL at a moment of the second batch. The drain may fail; a retry finishes."""
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap(moment)
    stage.topic.events(2_000)
    trap.wait()
    happens()
    trap.release()
    outcome = drain.wait()
    assert outcome.kind in ("failed", "drained"), outcome
    assert not stage.audit().wrong
    stage.topic.events(500)
    stage.finish()


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_e38_immediate_shutdown(stage: Stage, moment: str) -> None:
    def crash() -> None:
        stage.world.database.abandon()
        stage.world.database.start()

    at_a_moment(stage, moment, crash)


@pytest.mark.parametrize("moment", [MOMENTS["mid_copy"], MOMENTS["after_commit"]], ids=["mid_copy", "after_commit"])
def test_e38_kill_9(stage: Stage, moment: str) -> None:
    """The postmaster and every other process of the server are killed."""

    def crash() -> None:
        stage.world.database.kill()
        stage.world.database.start()

    at_a_moment(stage, moment, crash)


def test_e38_a_drain_starts_while_postgresql_is_down(stage: Stage) -> None:
    """It tries again until PostgreSQL answers."""
    stage.topic.events(1_000)
    stage.world.database.abandon()
    drain = stage.drain()
    until("it has tried twice", lambda: drain.log().count("Trying again") >= 2, 30)
    assert drain.alive
    stage.world.database.start()
    assert drain.wait().kind == "drained"
    stage.prove()


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_e39_the_connection_is_reset(stage: Stage, moment: str) -> None:
    """Only the connection is lost, with the data in transit."""
    at_a_moment(stage, moment, stage.postgres.cut)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_e40_the_backend_is_terminated(stage: Stage, moment: str) -> None:
    def terminate() -> None:
        stage.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'millrace land%%'",
            stage.name,
        )

    at_a_moment(stage, moment, terminate)


@pytest.fixture(scope="module")
def small_disk(home: Home) -> Iterator[Path]:
    """A file system of 160 MB."""
    path = home.path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def cramped(world: World, small_disk: Path) -> Iterator[World]:
    """The session's broker, and a PostgreSQL server on a small disk."""
    own = Home(small_disk / "home")
    for directory in (own.path, own.logs, own.run):
        directory.mkdir(mode=0o700)
    database = Database(own, shared_buffers="16MB", max_wal_size="48MB", min_wal_size="32MB")
    try:
        database.initialise()
        make_template(database)
        yield replace(world, database=database)
    finally:
        database.stop()
        shutil.rmtree(own.path)


def test_e41_the_disk_is_full(cramped: World, small_disk: Path) -> None:
    """Everything that fits lands. Then whole batches are refused, and land once there is space again."""
    with stage_of(cramped, READINGS) as stage:
        stage.topic.events(1_000)
        stage.land()
        filler = small_disk / "filler"
        free = shutil.disk_usage(small_disk).free
        with open(filler, "wb") as file:
            file.write(b"\0" * (free - 1_500_000))
        stage.topic.events(40_000, name="x" * 60)
        drain = stage.drain()
        try:
            until("the disk is full", lambda: "No space left" in drain.log(), 30)
        finally:
            filler.unlink()
        stage.world.database.ensure()
        assert drain.wait(90).kind in ("drained", "failed")
        assert not stage.audit().wrong
        stage.finish()


def test_e42_no_connection_is_left(stage: Stage) -> None:
    """The server accepts no more clients; the drain waits."""
    stage.topic.events(500)
    stage.query("ALTER ROLE warehouse CONNECTION LIMIT 0")
    try:
        drain = stage.drain()
        until("it has tried twice", lambda: drain.log().count("Trying again") >= 2, 30)
        assert drain.alive
    finally:
        stage.query("ALTER ROLE warehouse CONNECTION LIMIT -1")
    assert drain.wait().kind == "drained"
    stage.prove()


def test_e43_a_deadlock_with_a_users_session(stage: Stage) -> None:
    """A session locks the table and waits for the positions; the drain holds these and waits for the table."""
    stage.topic.events(500)
    drain = stage.drain()
    stage.until_landed(500)
    trap = stage.postgres.trap("server done WITH asked")
    stage.topic.events(500)
    trap.wait()
    with closing(stage.world.database.superuser(stage.name)) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("SET deadlock_timeout = '10s'")
        cursor.execute(f"LOCK TABLE landing.{stage.stream.name} IN ACCESS EXCLUSIVE MODE")
        waiting = threading.Thread(
            target=cursor.execute,
            args=("SELECT 1 FROM millrace.position WHERE reader = %s FOR UPDATE", (stage.stream.reader,)),
        )
        waiting.start()
        until(
            "the other session waits",
            lambda: (
                stage.query(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", stage.name
                )
                == [(1,)]
            ),
            10,
        )
        trap.release()
        waiting.join()
        other.rollback()
    outcome = drain.wait()
    assert (outcome.kind, outcome.error) in (("failed", "DeadlockDetected"), ("drained", "")), outcome
    assert not stage.audit().wrong
    stage.finish()


def test_e44_the_server_has_become_read_only(stage: Stage) -> None:
    """As after a failover to a standby that is not promoted yet (SQLSTATE 25006)."""
    stage.topic.events(500)
    drain = stage.drain(replace(stage.stream, quiet="20 seconds"))
    stage.until_landed(500)
    stage.world.database.set(default_transaction_read_only="on")
    time.sleep(0.5)
    try:
        stage.topic.events(500)
        until("the drain is refused", lambda: "read-only transaction" in drain.log(), 20)
        assert stage.landed() == 500
    finally:
        stage.world.database.set(default_transaction_read_only=None)
    stage.until_landed(1_000)
    drain.end()
    stage.finish()


@pytest.fixture
def standby(world: World, home: Home) -> Iterator[Database]:
    """A hot standby that follows the session's server synchronously."""
    own = Home(home.path / "standby")
    for directory in (own.path, own.logs, own.run):
        directory.mkdir(mode=0o700)
    shutil.copy(world.database.home.path / "secrets.json", own.path)
    password = {"PGPASSWORD": own.secrets["postgres"]}
    subprocess.run(
        [
            *postgres.as_server_user(),
            postgres.program("pg_basebackup"),
            "-D",
            str(own.postgres),
            "-c",
            "fast",
            "-R",
            "-h",
            "127.0.0.1",
            "-p",
            str(world.database.port),
            "-U",
            postgres.SUPERUSER,
        ],
        check=True,
        env=os.environ | password,
    )
    database = Database(own)
    try:
        database.start()
        world.database.set(synchronous_standby_names="*")
        yield database
    finally:
        world.database.ensure()
        world.database.set(synchronous_standby_names=None)
        database.stop()
        shutil.rmtree(own.path)


def test_e39_e44_failover_to_a_standby(stage: Stage, standby: Database) -> None:
    """The server crashes in the middle of a batch, and its standby takes over, which is read-only at first."""
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap(MOMENTS["mid_copy"])
    stage.topic.events(2_000)
    trap.wait()
    old = stage.world.database
    old.kill()
    stage.postgres.target = standby.port
    trap.release()
    until("the standby refuses rows", lambda: "read-only transaction" in drain.log(), 20)
    standby.execute("SELECT pg_promote()")
    until("the standby is promoted", lambda: not standby.execute("SELECT pg_is_in_recovery()")[0][0], 20)
    stage.world = replace(stage.world, database=standby)
    try:
        stage.topic.events(500)
        assert drain.wait(90).kind in ("drained", "failed")
        stage.finish()
    finally:
        stage.world = replace(stage.world, database=old)
        old.start()


def test_e45_the_table_is_locked_when_a_partition_is_attached(stage: Stage) -> None:
    """Attaching waits for two seconds, rolls back and tries again, so that no other session waits for long."""
    stage.topic.events(100)
    stage.land()
    with closing(stage.world.database.superuser(stage.name)) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute(f"LOCK TABLE landing.{stage.stream.name} IN SHARE MODE")
        stage.topic.send([older(stage, days=2)])
        drain = stage.drain(replace(stage.stream, quiet="10 seconds"))
        attempts: set[datetime] = set()

        def tried_twice() -> bool:
            waiting = "SELECT query_start FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
            attempts.update(start for (start,) in stage.query(waiting, stage.name))
            return len(attempts) > 1

        until("attaching was tried twice", tried_twice, 30)
        assert drain.alive
        other.rollback()
    stage.until_landed(101)
    drain.end()
    stage.prove()


def test_e46_a_statement_takes_too_long(stage: Stage) -> None:
    """The table is locked for longer than a statement may take, here two seconds: the whole batch fails."""
    stage.topic.events(100)
    stage.land()
    with closing(stage.world.database.superuser(stage.name)) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute(f"LOCK TABLE landing.{stage.stream.name} IN SHARE ROW EXCLUSIVE MODE")
        stage.topic.events(500)
        drain = stage.drain(tamper=tampering.statements_take_two_seconds_at_most)
        until("the statement has timed out", lambda: "statement timeout" in drain.log(), 20)
        other.rollback()
    assert drain.wait(90).kind == "drained"
    stage.finish()


def test_e47_asynchronous_commit_and_a_crash(stage: Stage) -> None:
    """Commits that the server confirmed but did not write are lost, rows and position together."""
    stage.query("ALTER ROLE warehouse SET synchronous_commit = off")
    database = stage.world.database
    database.set(wal_writer_delay="10s", wal_writer_flush_after="0")
    try:
        drain = stage.drain(replace(stage.stream, quiet="20 seconds"))
        for _ in range(10):
            stage.topic.events(100)
            time.sleep(0.1)
        stage.until_landed(1_000)
        database.kill()
        drain.kill()
        database.start()
        assert not stage.audit().wrong
        # A transaction that drops tables, here the temporary ones of a current state, commits synchronously anyway.
        assert stage.landed() < 1_000 or stage.stream.current, "no commit was lost, so the test shows nothing"
        stage.finish()
    finally:
        stage.query("ALTER ROLE warehouse RESET synchronous_commit")
        database.set(wal_writer_delay=None, wal_writer_flush_after=None)


@pytest.fixture
def pooled(stage: Stage) -> Iterator[Pooler]:
    """The stage's warehouse behind a pooler with four connections."""
    pooler = Pooler(stage.world.database.port)
    stage.postgres.target = pooler.port
    for _ in range(4):
        with stage.connected(stage.postgres):
            pass
    yield pooler
    pooler.close()


def test_e48_pgbouncer(stage: Stage, pooled: Pooler) -> None:
    """Every transaction has another backend, including those of a successor, maintenance and a replay."""
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap(MOMENTS["mid_copy"])
    stage.topic.events(1_000)
    stage.topic.send([b"{broken"] * 30, expect="dead letter")
    trap.wait()
    drain.kill()
    trap.cut()
    stage.topic.events(300, ts=datetime.now(UTC) - timedelta(days=2))
    assert stage.drain().wait().kind == "drained"
    assert stage.landed() == 2_300
    with stage.connected(stage.postgres) as connection:
        maintenance.maintain(connection, stage.stream)
        assert retry.retry(connection, stage.stream) == (0, 30, 0)
        assert sum(done.records for done in replay.replay(connection, stage.stream, Wanted(), "a test")) == 2_330
    assert pooled.switches > 20
    stage.prove()


def test_e48_a_stopped_drain_behind_pgbouncer_is_overtaken(stage: Stage, pooled: Pooler) -> None:
    """The backend that holds the position is not the one that claimed it."""
    stage.topic.events(1_000)
    stopped = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap(MOMENTS["after_compare_and_set"])
    stage.topic.events(1_000)
    trap.wait()
    stopped.freeze()
    trap.release()
    relay = stage.relay()
    relay.target = pooled.port
    successor = stage.drain(postgres=relay)
    stage.until_landed(2_000)
    stopped.thaw()
    assert stopped.wait().kind in ("fenced", "failed")
    assert successor.wait().kind == "drained"
    stage.finish()


def older(stage: Stage, days: int) -> bytes:
    """An event of some days ago."""
    return stage.topic.value(datetime.now(UTC) - timedelta(days=days))
