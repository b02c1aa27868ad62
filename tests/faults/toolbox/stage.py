"""The stage of one test: a stream with its topic and its warehouse behind proxies, and its drains."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from embedded.ports import HOST
from include.streams.definition import Stream
from tests.faults.toolbox import avro, tampering
from tests.faults.toolbox.audit import Findings, Snapshot, audit, snapshot
from tests.faults.toolbox.drains import Drain, Outcome
from tests.faults.toolbox.events import Topic, as_json, forget_producers
from tests.faults.toolbox.relay import KafkaRelay, PostgresRelay
from tests.faults.toolbox.servers import Broker, Database, Registry
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

TEMPLATE = "template_warehouse"
MAX_ATTEMPTS = 10
_numbers = itertools.count(1)


@dataclass
class World:
    """The servers of a session.

    Attributes:
        kafka: The proxy whose address the broker advertises on its second listener.
        registry: The schema registry, which starts for the first stage that needs it.
    """

    broker: Broker
    kafka: KafkaRelay
    database: Database
    registry: Registry
    logs: Path
    _starts: int = 0

    def restore(self) -> None:
        """Starts the servers and resets the proxy, whatever a test left behind."""
        self.kafka.reset()
        self.registry.thaw()
        started = [self.registry] if self.registry.starts else []
        for server in (self.broker, self.database, *started):
            server.ensure()
        if self.broker.starts != self._starts:
            self._starts = self.broker.starts
            forget_producers()


class Stage:
    """One stream on the session's servers.

    Args:
        shares: Another stage, whose warehouse this one uses.
        **topic: The topic's settings, ``_`` for ``.``.

    Attributes:
        postgres: The proxy before the warehouse that drains use by default.
        kafka_settings: Added to the settings of the connection.
    """

    def __init__(self, world: World, stream: Stream, *, shares: Stage | None = None, **topic: str) -> None:
        number = next(_numbers)
        self.world = world
        self.stream = replace(stream, name=f"{stream.name}_{number}", topic=f"{stream.name}-{number}")
        self.name: str = shares.name if shares else f"warehouse_{number}"
        self._owns_warehouse = shares is None
        if self._owns_warehouse:
            world.database.execute(f"CREATE DATABASE {self.name} OWNER warehouse TEMPLATE {TEMPLATE}")
        encode = as_json
        if stream.registry:
            world.registry.ensure()
            encode = avro.Encoder(world.registry.url, self.stream.topic)
        self.topic = Topic(world.broker.direct, self.stream.topic, stream.kafka_partitions, encode, **topic)
        self.postgres = PostgresRelay(world.database.port)
        self.kafka_settings: dict[str, Any] = {}
        self._relays = [self.postgres]
        self._drains: list[Drain] = []
        self._log = world.logs / f"{self.stream.name}.log"

    @property
    def kafka(self) -> KafkaRelay:
        """The proxy before the broker."""
        return self.world.kafka

    def relay(self) -> PostgresRelay:
        """Adds another proxy before the warehouse."""
        relay = PostgresRelay(self.world.database.port)
        self._relays.append(relay)
        return relay

    def drain(
        self,
        stream: Stream | None = None,
        postgres: PostgresRelay | None = None,
        shard: int = 0,
        tamper: Callable[[], None] | None = None,
        handing_over: bool = False,
        patient: bool = True,
    ) -> Drain:
        """Starts a drain behind the proxies. One that hands over is never patient."""
        connections = self.connections((postgres or self.postgres).port, self.kafka.port)
        patient = patient and not handing_over
        drain = Drain(stream or self.stream, connections, self._log, shard, tamper, handing_over, patient)
        self._drains.append(drain)
        return drain

    def connections(self, postgres: int | None = None, kafka: int | None = None) -> Mapping[str, str]:
        """The environment variables of the connections; without the proxies unless their ports are given."""
        warehouse = {
            "conn_type": "postgres",
            "host": HOST,
            "port": postgres or self.world.database.port,
            "login": "warehouse",
            "password": self.world.database.home.secrets["warehouse"],
            "schema": self.name,
        }
        brokers = {"bootstrap.servers": f"{HOST}:{kafka or self.world.broker.port}", **self.kafka_settings}
        return {
            "AIRFLOW_CONN_MILLRACE_POSTGRES": json.dumps(warehouse),
            "AIRFLOW_CONN_MILLRACE_KAFKA": json.dumps({"conn_type": "kafka", "extra": brokers}),
            "AIRFLOW_CONN_MILLRACE_REGISTRY": json.dumps({"conn_type": "http", "host": self.world.registry.url}),
        }

    def land(self, stream: Stream | None = None) -> list[Outcome]:
        """Drains without the proxies, again after each failure like Airflow, until all readable records have landed."""
        outcomes: list[Outcome] = []
        while not outcomes or outcomes[-1].kind != "drained" or self.lag():
            assert len(outcomes) < MAX_ATTEMPTS, f"not landed after {MAX_ATTEMPTS} attempts: {outcomes[-1]}"
            drain = Drain(stream or self.stream, self.connections(), self._log, tamper=tampering.topics_are_quiet_soon)
            self._drains.append(drain)
            outcomes.append(drain.wait())
            assert outcomes[-1].kind in ("drained", "failed"), f"{outcomes[-1]}\n{drain.log()}"
        return outcomes

    @contextmanager
    def connected(self, postgres: PostgresRelay | None = None) -> Iterator[Connection]:
        """Connects this process like a task of the stream, without proxies except the given one."""
        from include.warehouse.connection import connected

        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.connections(postgres.port if postgres else None).items():
                patch.setenv(name, value)
            with connected("faults") as connection:
                yield connection

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Executes a statement in the warehouse as superuser."""
        return self.world.database.execute(statement, *parameters, database=self.name)

    def backends(self, applications: str = "millrace%") -> int:
        """The number of connections to the warehouse whose application_name is LIKE a pattern."""
        counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s"
        return int(self.query(counted, self.name, applications)[0][0])

    def positions(self) -> dict[int, int]:
        """The next offset to read, for each partition that was claimed."""
        return dict(
            self.query("SELECT partition, next_offset FROM millrace.position WHERE reader = %s", self.stream.reader)
        )

    def landed(self) -> int:
        """The number of rows in the stream's table."""
        with closing(self.world.database.superuser(self.name)) as connection:
            return self._rows(connection)

    def lag(self) -> int:
        """The number of unread offsets below the stable ends."""
        positions = self.positions()
        return sum(end - positions.get(partition, 0) for partition, end in self.topic.stable_ends().items())

    def snapshot(self) -> Snapshot:
        """The topic as it is now."""
        return snapshot(self.world.broker.direct, self.stream.topic)

    def until_landed(self, rows: int, within_s: float = 30.0) -> None:
        """Waits until the table has a number of rows. Fails as soon as no drain runs any more."""

        with closing(self.world.database.superuser(self.name)) as connection:

            def arrived() -> bool:
                alive = [drain for drain in self._drains if drain.alive]
                if self._rows(connection) >= rows:
                    return True
                assert alive, f"no drain runs, and {rows} rows have not landed:\n{self._drains[-1].log()}"
                return False

            until(f"{rows} rows have landed", arrived, within_s, every_s=0.05, why=self._progress)

    def audit(self, *earlier: Snapshot, **options: Any) -> Findings:
        """Audits the present state; ``earlier`` are snapshots of former incarnations."""
        return self.audit_of(*earlier, self.snapshot(), **options)

    def until_claimed(self, times: int, within_s: float = 30.0) -> None:
        """Waits until each partition has been claimed a number of times."""
        epochs = "SELECT min(epoch) FROM millrace.position WHERE reader = %s"
        until(
            f"every partition is claimed {times} times",
            lambda: (self.query(epochs, self.stream.reader)[0][0] or 0) >= times,
            within_s,
        )

    def audit_of(self, *topics: Snapshot, **options: Any) -> Findings:
        """Audits with snapshots of every incarnation of the topic, the current one last."""
        with closing(self.world.database.superuser(self.name)) as connection:
            connection.set_session("REPEATABLE READ", autocommit=False)
            return audit(connection, self.stream, topics, **options)

    def prove(self, *earlier: Snapshot, **options: Any) -> Findings:
        """Asserts that nothing is wrong or unread, and that every acknowledged record is still in the topic."""
        now = self.snapshot()
        committed = {(partition, offset) for partition, log in now.logs.items() for offset in log.committed}
        removed = {(p, o) for p, o in self.topic.acknowledged - committed if o >= now.logs[p].first}
        assert not removed, f"the test's own topic lost {len(removed)} acknowledged records"
        findings = self.audit_of(*earlier, now, **options)
        assert not findings.wrong, "\n".join(findings.wrong)
        assert not findings.unread, f"{findings.unread} committed records were not read"
        return findings

    def finish(self) -> Findings:
        """Lands all remaining records, then proves that nothing is wrong."""
        self.land()
        return self.prove()

    def close(self) -> None:
        """Ends the drains and proxies, and drops the warehouse."""
        for drain in self._drains:
            drain.end()
        for relay in self._relays:
            relay.close()
        self.world.restore()
        if self._owns_warehouse:
            self.world.database.execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _progress(self) -> str:
        """How far sending, landing and the positions are."""
        ends, positions = self.topic.stable_ends(), self.positions()
        logs = "\n".join(drain.log() for drain in self._drains if drain.alive)
        return (
            f": {self.landed()} have; {len(self.topic.acknowledged)} records were acknowledged, "
            f"the topic ends at {ends}, read up to {positions}; the drains wrote:\n{logs}"
        )

    def _rows(self, connection: Connection) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", (f"landing.{self.stream.name}",))
            if cursor.fetchone() == (None,):
                return 0
            cursor.execute(f"SELECT count(*) FROM landing.{self.stream.name}")
            return int((cursor.fetchone() or (0,))[0])
