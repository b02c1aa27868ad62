"""Generated stream definitions with events: whatever is accepted makes its table, and each event has one disposition.

MILLRACE_GENERATED is how many, MILLRACE_GENERATED_SEED where they begin:

    MILLRACE_GENERATED=2000 ./millrace test tests/integration/test_landing_generated.py
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.kafka import client, topics
from include.landing import maintenance, proof, retry, status, table
from include.landing import replay as replays
from include.landing.drain import drain
from include.streams.definition import Instant, Stream
from include.warehouse.connection import connect
from tests.integration.generated_streams import Case, case

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

COUNT = int(os.environ.get("MILLRACE_GENERATED", "100"))
SEED = int(os.environ.get("MILLRACE_GENERATED_SEED", "0"))
AT_ONCE = 6
QUIET_S = 0.2
# Of streams whose first event needs longer to come, by their names.
_LONGER_S: dict[str, float] = {}
TOPIC_CONFIG = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str(2**63 - 1),
    "retention.ms": "-1",
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drains end early: each stream is drained until nothing waits."""
    monkeypatch.setattr(Stream, "quiet_s", property(lambda stream: _LONGER_S.get(stream.name, QUIET_S)))


@pytest.mark.timeout(60 + 5 * COUNT)
def test_whatever_check_accepts_lands_or_is_kept_aside(warehouse: Connection, topic: Callable[..., str]) -> None:
    cases = [(seed, case(seed, f"s{seed}", topic("generated"))) for seed in range(SEED, SEED + COUNT)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda each: outcome(*each), cases))
    counts = sum((found for found, _ in outcomes), Counter[str]())
    print(dict(counts))
    failed = [failed for _, failed in outcomes if failed]
    assert not failed, "\n".join(failed)
    assert counts["accepted"] > COUNT / 2
    for disposition in ("refused", "landed", "dead letter", "quarantined", "skipped"):
        assert counts[disposition], f"the generator made none that is {disposition}"


def outcome(seed: int, case: Case) -> tuple[Counter[str], str]:
    """What became of a definition and its records, and what is wrong with that."""
    try:
        stream = case.stream()
    except InvalidDefinition:
        return Counter(["refused"]), ""
    try:
        with closing(connect(f"generated {seed}")) as connection:
            return Counter(["accepted"]) + landed(connection, stream, case), ""
    except Exception as error:
        return Counter(), f"seed {seed}: {type(error).__name__}: {error}"


def landed(connection: Connection, stream: Stream, case: Case) -> Counter[str]:
    topics.create(stream.topic, partitions=1, config=TOPIC_CONFIG)
    producer = client.producer()
    for value, stamp in case.records:
        producer.produce(stream.topic, value, partition=0, timestamp=stamp)
    assert producer.flush(20) == 0
    while status.of(stream, connection).lag:
        drain(stream, "test")
        _LONGER_S[stream.name] = 2 * stream.quiet_s
    assert not table.changes(connection, stream), "the table is not as the definition says"
    found = dispositions(connection, stream)
    skipped = sum(value is None for value, _ in case.records)
    assert sum(found.values()) + skipped == len(case.records), "a record has no disposition, or two"
    assert proof.prove(connection, stream).wrong == []
    replays.replay(connection, stream, replays.Wanted(), "test")
    assert dispositions(connection, stream) == found, "a replay decides otherwise"
    assert retry.retry(connection, stream)[0] == 0, "a retry decides otherwise"
    assert proof.prove(connection, stream).wrong == []
    return Counter(disposition for _, disposition, _ in found.elements()) + Counter(skipped=skipped)


def dispositions(connection: Connection, stream: Stream) -> Counter[tuple[Any, ...]]:
    """Where the records are, and why; a client reads every row whole."""
    found: Counter[tuple[Any, ...]] = Counter()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM landing.{stream.name}")
        found.update((row[0], "landed", "") for row in cursor)
        cursor.execute("SELECT * FROM millrace.dead_letter WHERE stream = %s", (stream.name,))
        found.update((row[3], row[4], row[5]) for row in cursor)
    connection.rollback()
    return found


def made(*fields: Any, doc: str | None = None) -> type[msgspec.Struct]:
    return msgspec.defstruct("Event", [("ts", Instant), *fields], kw_only=True, namespace={"__doc__": doc})


LIMITS: dict[str, dict[str, Any]] = {
    "a long name": {"name": "a" * 48},
    "a keyword as name": {"name": "select"},
    "long names of fields": {"event": made(("x" * 63, int), ("é" * 31, str), ("from", str), ("CTID", int))},
    "as many fields as can be": {"event": made(*((f"f{n}", int | None, None) for n in range(1_596)))},
    "as much in each row as can be": {"event": made(*((f"f{n}", int, 0) for n in range(1_014)))},
    "a blank description": {"event": made(doc=" \n ")},
    "a description that PostgreSQL cannot hold": {"event": made(doc="a\0b 'c' %s {}")},
    "the longest spans": {
        "partition": "36500 days",
        "late": "365000 days",
        "early": "365000 days",
        "keep": "500000 days",
    },
}


@pytest.mark.parametrize("changes", LIMITS.values(), ids=LIMITS.keys())
def test_definitions_at_the_limits_land(
    warehouse: Connection, topic: Callable[..., str], changes: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"name": "limits", "topic": topic("limits"), "event": made(), "event_time": "ts"}
    stream = Stream(**settings | changes)
    assert maintenance.maintain(warehouse, stream)[0], "no partitions were made ahead"
    record = msgspec.json.encode({"ts": datetime.now(UTC), "x" * 63: 1, "é" * 31: "y", "from": "z", "CTID": 2})
    assert landed(warehouse, stream, Case({}, [(record, 0)] * 3)) == {"landed": 3}
