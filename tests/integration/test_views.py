"""The views behind the pages show what the datasets and streams did."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from include.kafka.position_errors import TopicRecreated
from include.landing import failures, maintenance, proof
from include.landing.drain import drain
from include.promotion import evaluation_queue
from include.streams.definition import Stream
from tests.integration.landing import event, recreate, refusing, send, stream
from tests.integration.registry import ask, change, given, seal, signal, train, train_years, weather

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


def view(connection: Connection, name: str, where: str = "true", *values: object) -> list[Any]:
    return ask(connection, f"SELECT * FROM millrace.{name} WHERE {where}", *values)


def test_views_of_a_dataset(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = weather(topic)
    runs = train_years(dataset)
    evaluation_queue.evaluate_pending_runs(dataset)
    (overview,) = view(warehouse, "dataset_overview", "dataset = %s", dataset.name)
    (champion,) = view(warehouse, "champion")
    assert (overview.versions, overview.last_run, overview.last_run_state) == (3, runs[-1], "success")
    assert (overview.live_model, overview.live_version, overview.live_since) == (
        champion.model,
        champion.version,
        champion.since,
    )
    assert 0 < overview.live_age_s < 600
    assert overview.judged_run == runs[-1]
    values = view(warehouse, "value", "dataset = %s ORDER BY rank", dataset.name)
    assert overview.trend == [row.live for row in values]
    # It was promoted on the newest version, where another model was live.
    (own,) = view(warehouse, "accuracy", "run = %s AND model = %s", champion.run, champion.model)
    assert champion.run == runs[-1]
    assert (overview.live_value, overview.metric) == (own.accuracy, "accuracy") != (values[-1].live, "accuracy")

    curve = view(
        warehouse, "metric_by_version", "metric = 'accuracy' AND model = %s ORDER BY version_number", champion.model
    )
    assert [row.run for row in curve] == runs
    known = {(row.run, row.model): row for row in view(warehouse, "accuracy")}
    for row in curve:
        source = known[row.run, row.model]
        assert (row.value, row.low, row.high, row.baseline) == (
            source.accuracy,
            source.low,
            source.high,
            source.baseline,
        )
        assert row.low < row.value < row.high
    promoted = {row.run: (row.number, row.model) for row in view(warehouse, "champion_history", "cause <> 'rollback'")}
    assert champion.run in promoted
    assert {row.run: (row.promoted_to, row.model) for row in curve if row.promoted_to} == {
        run: change for run, change in promoted.items() if change[1] == champion.model
    }
    judged = {row.run: row.champion_number for row in view(warehouse, "gate")}
    assert [row.champion_number for row in curve] == [judged[run] for run in runs]

    evidence = view(warehouse, "evidence", "model = %s ORDER BY version_number", champion.model)
    verdicts = {row.run: row for row in view(warehouse, "verdict", "model = %s", champion.model)}
    assert [(row.e_value, row.threshold, row.outcome) for row in evidence] == [
        (verdicts[row.run].e_value, verdicts[row.run].threshold, verdicts[row.run].outcome) for row in evidence
    ]
    assert {row.run for row in evidence} == verdicts.keys()

    for outcome in view(warehouse, "run_outcome", "dataset = %s", dataset.name):
        best = max((row.accuracy, row.model) for (run, _), row in known.items() if run == outcome.run)
        assert (outcome.value, outcome.metric, outcome.models) == (best[0], "accuracy", 4)
        assert outcome.promoted == promoted.get(outcome.run, (0, None))[1]
        assert outcome.sentence


def test_confusions_and_classes_are_compared_with_the_version_before(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    dataset = given(topic, signal(600))
    first = train(dataset, seal(dataset))
    dataset.source.table = signal(800, strength=0.5, seed=1, first=600)  # type: ignore[attr-defined]
    second = train(dataset, seal(dataset))
    counts = {
        run: {
            (row.actual, row.predicted): row.count
            for row in ask(
                warehouse,
                "SELECT confusion.* FROM millrace.confusion JOIN millrace.model_result USING (result)"
                " WHERE run = %s AND model = 'tree'",
                run,
            )
        }
        for run in (first, second)
    }
    cells = view(warehouse, "confusion_change", "run = %s AND model = 'tree'", second)
    assert {(cell.actual, cell.predicted) for cell in cells} == counts[first].keys() | counts[second].keys()
    for cell in cells:
        place = (cell.actual, cell.predicted)
        for run, count, share in (
            (second, cell.count, cell.share),
            (first, cell.previous_count, cell.previous_share),
        ):
            row = sum(n for (actual, _), n in counts[run].items() if actual == cell.actual)
            assert count == counts[run].get(place, 0)
            assert share == pytest.approx(count / row)
    # The first version has none before.
    alone = view(warehouse, "confusion_change", "run = %s AND model = 'tree'", first)
    assert {(cell.actual, cell.predicted): cell.count for cell in alone} == counts[first]
    assert {(cell.previous_count, cell.previous_number) for cell in alone} == {(None, None)}

    classes = view(warehouse, "class_change", "run = %s AND model = 'tree' ORDER BY class_name", second)
    before = view(warehouse, "class_change", "run = %s AND model = 'tree' ORDER BY class_name", first)
    assert [row.class_name for row in classes] == ["no", "yes"]
    assert [(row.previous_recall, row.previous_f1) for row in classes] == [(row.recall, row.f1) for row in before]
    assert {row.previous_recall for row in before} == {None}


def test_what_a_run_trained_on(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = given(topic, signal(600))
    version = seal(dataset)
    run = train(dataset, version)
    (found,) = view(warehouse, "run_input", "run = %s", run)
    ((manifest,),) = ask(warehouse, "SELECT manifest FROM millrace.dataset_version WHERE version = %s", version)
    messages = json.loads(bytes(manifest))["messages"]
    offsets: dict[int, list[int]] = {}
    for message in messages:
        offsets.setdefault(message["partition"], []).append(message["offset"])
    ranges = [f"partition {number}: {min(these)} to {max(these)}" for number, these in sorted(offsets.items())]
    assert (found.version, found.topic, found.messages) == (version, f"millrace.dataset.{dataset.name}", len(messages))
    assert found.offsets == ", ".join(ranges)
    assert (found.train_rows + found.test_rows, found.asked_by, found.state) == (600, "test", "success")
    assert found.libraries["scikit-learn"]


def test_views_of_a_stream(stream: Stream, warehouse: Connection) -> None:
    refusing(warehouse, stream)
    send(stream, [event(str(number), number=number) for number in range(50)])
    send(stream, [b"bad", b"worse, at byte 7", None, event(number=-1)], partition=1)
    drain(stream, "test")
    (overview,) = view(warehouse, "stream_overview")
    assert (overview.stream, overview.topic, overview.offsets) == ("readings", stream.topic, 54)
    assert (overview.landed, overview.dead_letters, overview.quarantined, overview.skipped) == (50, 3, 0, 1)
    assert overview.newest_event == ask(warehouse, "SELECT max(ts) FROM landing.readings")[0][0]
    assert overview.oldest_dead_letter_at == ask(warehouse, "SELECT min(kept_at) FROM millrace.dead_letter")[0][0]
    assert overview.stopped_task is None and overview.proved_at is None and overview.rate_hour is None

    reasons = view(warehouse, "dead_letter_reason", "stream = 'readings' ORDER BY bytes")
    assert sum(row.records for row in reasons) == 3
    assert sum(row.bytes for row in reasons) == len(b"bad") + len(b"worse, at byte 7") + len(event(number=-1))

    proof.prove_and_store(warehouse, stream, "ann")
    (proven,) = view(warehouse, "stream_overview")
    assert proven.proved_at is not None and proven.proof_errors == 0
    assert sum(row.next_offset for row in view(warehouse, "reconciliation")) == 54
    assert {row.unaccounted for row in view(warehouse, "reconciliation")} == {0}
    change(warehouse, "UPDATE millrace.position SET next_offset = next_offset + 2 WHERE partition = 0")
    assert {row.kafka_partition: row.unaccounted for row in view(warehouse, "reconciliation")} == {0: 2, 1: 0, 2: 0}


def test_partitions_show_their_size_and_when_they_are_dropped(stream: Stream, warehouse: Connection) -> None:
    maintenance.maintain(warehouse, stream)
    change(
        warehouse,
        "INSERT INTO millrace.stream_setting (stream, topic, partition, keep) VALUES ('readings', %s, %s, %s)",
        stream.topic,
        stream.period.interval,
        stream.retention,
    )
    found = view(warehouse, "stream_partition", "stream = 'readings' ORDER BY starts_at")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert [row.starts_at - today for row in found] == [timedelta(days=number) for number in range(4)]
    assert {row.ends_at - row.starts_at for row in found} == {timedelta(days=1)}
    assert {row.drops_at - row.ends_at for row in found} == {timedelta(days=90)}
    assert all(row.bytes > 0 and not row.is_detaching for row in found)
    change(warehouse, "UPDATE millrace.stream_setting SET keep = NULL")
    assert {row.drops_at for row in view(warehouse, "stream_partition", "stream = 'readings'")} == {None}


def test_a_stopped_stream_names_the_error_and_the_remedy(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    recreate(stream)
    with pytest.raises(TopicRecreated) as stopped:
        drain(stream, "test")
    (overview,) = view(warehouse, "stream_overview")
    assert (overview.stopped_task, overview.stopped_code) == (failures.drain_of(0), "topic-recreated")
    assert "./millrace accept readings" in overview.stopped_remedy
    assert overview.stopped_error in " ".join(str(stopped.value).split())
