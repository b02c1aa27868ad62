"""Generated stream definitions with events: each accepted one creates its table and gives each event one disposition.

MILLRACE_GENERATED is their number, MILLRACE_GENERATED_SEED the first seed:

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
CONCURRENCY = 6
QUIET_S = 0.2
# The quiet times of streams whose first event takes longer, by their names.
_LONGER_S: dict[str, float] = {}
TOPIC_CONFIG = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str(2**63 - 1),
    "retention.ms": "-1",
}


@pytest.fixture(autouse=True)
def short_quiet_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets drains end early; each stream is drained until no record waits."""
    monkeypatch.setattr(Stream, "quiet_s", property(lambda stream: _LONGER_S.get(stream.name, QUIET_S)))


@pytest.mark.timeout(60 + 5 * COUNT)
def test_every_accepted_definition_lands_its_events(warehouse: Connection, topic: Callable[..., str]) -> None:
    cases = [(seed, case(seed, f"s{seed}", topic("generated"))) for seed in range(SEED, SEED + COUNT)]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        outcomes = list(pool.map(lambda each: outcome(*each), cases))
    counts = sum((found for found, _ in outcomes), Counter[str]())
    print(dict(counts))
    failed = [failed for _, failed in outcomes if failed]
    assert not failed, "\n".join(failed)
    assert counts["accepted"] > COUNT / 2
    for disposition in ("refused", "landed", "dead letter", "quarantined", "skipped"):
        assert counts[disposition], f"the generator produced no {disposition}"


def outcome(seed: int, case: Case) -> tuple[Counter[str], str]:
    """The dispositions of a definition's records, and an error if there is one."""
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
    assert not table.changes(connection, stream), "the table does not match the definition"
    found = dispositions(connection, stream)
    skipped = sum(value is None for value, _ in case.records)
    assert sum(found.values()) + skipped == len(case.records), "a record has no disposition, or two"
    assert proof.prove(connection, stream).wrong == []
    replays.replay(connection, stream, replays.Wanted(), "test")
    assert dispositions(connection, stream) == found, "a replay decides differently"
    assert retry.retry(connection, stream)[0] == 0, "a retry decides differently"
    assert proof.prove(connection, stream).wrong == []
    return Counter(disposition for _, disposition, _ in found.elements()) + Counter(skipped=skipped)


def dispositions(connection: Connection, stream: Stream) -> Counter[tuple[Any, ...]]:
    """The dispositions of the records, with their reasons. It also reads every row as a client does."""
    found: Counter[tuple[Any, ...]] = Counter()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM landing.{stream.name}")
        found.update((row[0], "landed", "") for row in cursor)
        cursor.execute("SELECT * FROM millrace.dead_letter WHERE stream = %s", (stream.name,))
        found.update((row[3], row[4], row[5]) for row in cursor)
    connection.rollback()
    return found


def event_type(*fields: Any, doc: str | None = None) -> type[msgspec.Struct]:
    return msgspec.defstruct("Event", [("ts", Instant), *fields], kw_only=True, namespace={"__doc__": doc})


LIMITS: dict[str, dict[str, Any]] = {
    "a long name": {"name": "a" * 48},
    "a keyword as name": {"name": "select"},
    "long names of fields": {"event": event_type(("x" * 63, int), ("é" * 31, str), ("from", str), ("CTID", int))},
    "the most fields": {"event": event_type(*((f"f{n}", int | None, None) for n in range(1_596)))},
    "the largest rows": {"event": event_type(*((f"f{n}", int, 0) for n in range(1_014)))},
    "a blank description": {"event": event_type(doc=" \n ")},
    "a description that PostgreSQL cannot hold": {"event": event_type(doc="a\0b 'c' %s {}")},
    "the longest spans": {
        "partition": "36500 days",
        "late": "365000 days",
        "early": "365000 days",
        "keep": "500000 days",
    },
    "centuries that are kept forever": {"partition": "100 years", "late": "any", "keep": "forever"},
}


@pytest.mark.parametrize("changes", LIMITS.values(), ids=LIMITS.keys())
def test_definitions_at_the_limits_land(
    warehouse: Connection, topic: Callable[..., str], changes: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"name": "limits", "topic": topic("limits"), "event": event_type(), "event_time": "ts"}
    stream = Stream(**settings | changes)
    assert maintenance.maintain(warehouse, stream)[0], "no partitions were created ahead"
    record = msgspec.json.encode({"ts": datetime.now(UTC), "x" * 63: 1, "é" * 31: "y", "from": "z", "CTID": 2})
    assert landed(warehouse, stream, Case({}, [(record, 0)] * 3)) == {"landed": 3}
