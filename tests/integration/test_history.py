"""History is deleted when it is old, except for what a proof, a replay or a promotion needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from include.airflow import history
from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import topics
from include.landing import ledger, proof, recovery, replay, retry
from include.landing.choice import Choice
from include.landing.drain import drain
from include.promotion import evaluation_queue
from include.registry import champion_history
from include.training.verification import verify_run
from include.versions import retention
from tests.errors import raises
from tests.integration.landing import event, recreate, send, stream
from tests.integration.registry import ask, change, given, signal
from tests.integration.test_proof import landed
from tests.integration.test_retention import finished

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream

__all__ = ["landed", "stream"]
LATER = datetime.now(UTC) + timedelta(days=1)
DAY = timedelta(days=1)
TOTALS = "SELECT sum(landed), sum(dead_letters) AS bad, sum(checksum) AS sums FROM millrace.landing_ledger"


def entries(warehouse: Connection) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in ask(
            warehouse,
            "SELECT kafka_incarnation, kafka_partition, first_offset, next_offset FROM millrace.landing_ledger"
            " ORDER BY 1, 2, 3",
        )
    ]


def age(warehouse: Connection, days: int) -> None:
    """Makes the ledger older."""
    change(
        warehouse,
        "UPDATE millrace.landing_ledger SET started_at = started_at - %s, updated_at = updated_at - %s",
        days * DAY,
        days * DAY,
    )


class TestLedger:
    def test_the_entries_of_a_day_become_one_and_prove_the_same(self, landed: Stream, warehouse: Connection) -> None:
        for number in range(3):
            age(warehouse, 1)
            for _ in range(2):
                send(landed, [event(str(number)), b"bad"])
                drain(landed, "test")
        before = entries(warehouse)
        assert len(before) == 8
        totals = ask(warehouse, TOTALS)
        assert ledger.merge(warehouse, landed, LATER - 2.5 * DAY) == 2
        merged = [(0, 106), (106, 110), (110, 112), (112, 114), (114, 116), (116, 118)]
        assert entries(warehouse) == [(1, 0, *offsets) for offsets in merged]
        # The last claim's entry is not merged: a drain adds to it.
        assert ledger.merge(warehouse, landed, LATER) == 1
        assert ledger.merge(warehouse, landed, LATER) == 0
        assert entries(warehouse)[-2:] == [(1, 0, 114, 116), (1, 0, 116, 118)]
        assert totals == ask(warehouse, TOTALS)
        found = proof.prove(warehouse, landed)
        assert (found.wrong, found.compared) == ([], 118)
        send(landed, [event("next")])
        assert drain(landed, "test").landed == 1
        assert proof.prove(warehouse, landed).wrong == []

    def test_a_missing_row_in_merged_entries_is_found(self, landed: Stream, warehouse: Connection) -> None:
        drain_twice(landed)
        age(warehouse, 40)
        ledger.merge(warehouse, landed, LATER)
        change(warehouse, "DELETE FROM landing.readings WHERE kafka_offset = 5")
        assert any("records without a row or dead letter: 5" in wrong for wrong in proof.prove(warehouse, landed).wrong)

    def test_a_replay_and_a_retry_correct_merged_entries(self, landed: Stream, warehouse: Connection) -> None:
        drain_twice(landed)
        age(warehouse, 40)
        ledger.merge(warehouse, landed, LATER)
        change(warehouse, "ALTER TABLE landing.readings DROP CONSTRAINT mine")
        assert retry.retry(warehouse, landed)[0] > 0
        assert proof.prove(warehouse, landed).wrong == []
        replay.replay(warehouse, landed, replay.Wanted(), "test")
        assert proof.prove(warehouse, landed).wrong == []

    def test_entries_are_merged_while_a_replay_runs(self, landed: Stream, warehouse: Connection) -> None:
        drain_twice(landed)
        age(warehouse, 40)
        replayer = replay._Replayer(warehouse, landed, landed.topic, "test")
        spans = replayer.spans(replay.Wanted())
        ledger.merge(warehouse, landed, LATER)
        change(warehouse, "ALTER TABLE landing.readings DROP CONSTRAINT mine")
        for span in spans:
            replayer.replay(span, lambda done: None)
        assert proof.prove(warehouse, landed).wrong == []

    def test_gaps_and_incarnations_stay_apart(self, landed: Stream, warehouse: Connection) -> None:
        topics.drop_below(landed.topic, {0: 106})
        send(landed, [event(str(number)) for number in range(4)])
        topics.drop_below(landed.topic, {0: 108})
        recovery.accept(warehouse, landed, Choice.LOST, "somebody")
        drain_twice(landed)
        recreate(landed)
        recovery.accept(warehouse, landed, Choice.RECREATED, "somebody")
        drain_twice(landed)
        age(warehouse, 40)
        assert ledger.merge(warehouse, landed, LATER) > 0
        found = entries(warehouse)
        assert found[0] == (1, 0, 0, 106)
        assert found[1][:3] == (1, 0, 108)
        assert {place[0] for place in found} == {1, 2}
        assert proof.prove(warehouse, landed).wrong == []

    def test_entries_past_retention_become_one(self, landed: Stream, warehouse: Connection) -> None:
        for _ in range(3):
            drain_twice(landed)
            age(warehouse, 1)
        short = replace(landed, keep="30 days")
        age(warehouse, 400)
        ledger.merge(warehouse, short, LATER)
        assert len(entries(warehouse)) == 2
        assert proof.prove(warehouse, short).wrong == []

    def test_a_recently_corrected_entry_divides_the_others(self, landed: Stream, warehouse: Connection) -> None:
        for _ in range(3):
            drain_twice(landed)
        age(warehouse, 40)
        change(warehouse, "UPDATE millrace.landing_ledger SET updated_at = now() WHERE first_offset = 53")
        ledger.merge(warehouse, landed, LATER - 2 * DAY)
        assert [first for _, _, first, _ in entries(warehouse)][:3] == [0, 53, 106]
        assert proof.prove(warehouse, landed).wrong == []


def drain_twice(stream: Stream) -> None:
    for _ in range(2):
        send(stream, [event("more")])
        drain(stream, "test")


class TestTraining:
    @pytest.mark.altered("models")
    def test_models_of_expired_versions_are_emptied(self, topic: Callable[..., str], warehouse: Connection) -> None:
        dataset = given(topic, signal(200), keep="2 versions")
        versions = finished(warehouse, dataset, [0, 1, 2, 10, 11])
        expired = retention.expire(warehouse, dataset)
        champion = champion_history.current(warehouse, dataset.name)
        runs = ask(
            warehouse,
            "SELECT run, version, EXISTS (SELECT FROM millrace.artifact WHERE artifact.run = training_run.run) AS was"
            " FROM millrace.training_run ORDER BY run",
        )
        assert history.empty_models(warehouse, LATER - 3 * DAY) == 0
        assert history.empty_models(warehouse, LATER) == 2 * len(expired)
        assert history.empty_models(warehouse, LATER) == 0
        lines = ask(warehouse, "SELECT count(*) FROM millrace.run_log")[0].count
        history.remove_run_logs(warehouse, LATER)
        left = ask(warehouse, "SELECT DISTINCT run FROM millrace.run_log ORDER BY run")
        assert [run for (run,) in left] == [one.run for one in runs if one.was]
        assert ask(warehouse, "SELECT count(*) FROM millrace.run_log")[0].count < lines or not lines
        assert champion_history.current(warehouse, dataset.name) == champion
        assert expired == versions[:3]
        for one in runs:
            if one.version not in expired:
                assert verify_run(one.run, "test").outcome == "identical"
        evaluation_queue.evaluate_pending_runs(dataset)


class TestLogs:
    def test_old_files_and_empty_directories_are_deleted(self, tmp_path: Path) -> None:
        old = (datetime.now(UTC) - 40 * DAY).timestamp()
        files = {name: tmp_path / name for name in ("a/old/1.log", "a/old/2.log", "b/new.log", "b/old.log")}
        for name, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
            if "old" in path.name or "a/" in name:
                os.utime(path, (old, old))
        (tmp_path / "fresh").mkdir()
        (tmp_path / "gone").symlink_to("nowhere")
        assert history.remove_logs(tmp_path, datetime.now(UTC) - 30 * DAY) == 3
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        assert left == {"a", "b", "b/new.log", "fresh", "gone"} or left == {"b", "b/new.log", "fresh", "gone"}

    def test_a_setting_that_is_not_a_duration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__MILLRACE__KEEP_LEDGER", "a while")
        with raises(Code.INVALID_SETTING, "keep_ledger", "'a while'", "MILLRACE_AIRFLOW", kind=NonRetryableError):
            history.kept("keep_ledger")
        monkeypatch.setenv("AIRFLOW__MILLRACE__KEEP_LEDGER", "2 days")
        assert history.kept("keep_ledger") == 2 * DAY
