"""The gate on a real broker and server: order, evidence that counts once, no leaks, and incomparable versions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io

from include.datasets import Dataset, HashSplit, Metric, definitions, evidence, not_worse_and_fresher
from include.kafka import client
from include.promotion import evaluation_queue
from include.registry import champion_history
from include.versions import reading
from include.versions.manifest import decode
from tests.integration import registry
from tests.integration.registry import ask, champions, change, given, seal, signal, train, train_years, weather, year
from tests.unit import independent_gate

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

FORGET = (
    "TRUNCATE millrace.gate, millrace.verdict, millrace.artifact, millrace.champion_change, millrace.approval,"
    " millrace.score"
)


def judged(connection: Connection, dataset: Dataset) -> list[Any]:
    return ask(connection, "SELECT * FROM millrace.judgement WHERE dataset = %s ORDER BY run, model", dataset.name)


def gates(connection: Connection, dataset: Dataset) -> dict[int, Any]:
    rows = ask(connection, "SELECT * FROM millrace.gate WHERE dataset = %s ORDER BY judged_at", dataset.name)
    return {row.run: row for row in rows}


def at_once(*actions: Callable[[], object]) -> list[object]:
    """Calls all actions at the same moment. Returns what each returned or raised."""
    start = threading.Barrier(len(actions))
    outcomes: list[object] = [None] * len(actions)

    def act(number: int) -> None:
        start.wait()
        try:
            outcomes[number] = actions[number]()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


class TestOrder:
    """Three years of weather, trained once; then the runs end and are judged in different orders."""

    @pytest.fixture
    def years(self, topic: Callable[..., str], warehouse: Connection) -> tuple[Dataset, list[int]]:
        dataset = weather(topic)
        return dataset, train_years(dataset)

    def replay(self, connection: Connection, runs: list[int]) -> None:
        change(connection, FORGET)
        change(connection, "UPDATE millrace.training_run SET state = 'running' WHERE run = ANY (%s)", runs)

    def end(self, connection: Connection, run: int, state: str = "success") -> None:
        change(connection, "UPDATE millrace.training_run SET state = %s WHERE run = %s", state, run)

    def test_the_champions_do_not_depend_on_the_order_in_which_runs_end(
        self, years: tuple[Dataset, list[int]], warehouse: Connection
    ) -> None:
        dataset, runs = years
        assert evaluation_queue.evaluate_pending_runs(dataset) == runs
        expected, verdicts = champions(warehouse, dataset), judged(warehouse, dataset)
        assert len(expected) >= 2, "a single champion would not show the order"
        for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]):
            self.replay(warehouse, runs)
            found = []
            for number in order:
                self.end(warehouse, runs[number])
                found += evaluation_queue.evaluate_pending_runs(dataset)
            assert found == runs, order
            assert champions(warehouse, dataset) == expected
            again = judged(warehouse, dataset)
            assert [row._replace(judged_at=None) for row in again] == [row._replace(judged_at=None) for row in verdicts]

    def test_runs_that_end_at_the_same_moment_are_judged_once_and_in_order(
        self, years: tuple[Dataset, list[int]], warehouse: Connection
    ) -> None:
        dataset, runs = years
        evaluation_queue.evaluate_pending_runs(dataset)
        expected = champions(warehouse, dataset)
        self.replay(warehouse, runs)
        from include.warehouse.connection import connected

        def end_and_judge(run: int) -> list[int]:
            with connected("test") as connection:
                self.end(connection, run)
            return evaluation_queue.evaluate_pending_runs(dataset)

        found = at_once(*(lambda run=run: end_and_judge(run) for run in reversed(runs)))
        assert sorted(run for part in found for run in part) == runs  # type: ignore[attr-defined]
        assert champions(warehouse, dataset) == expected
        assert list(gates(warehouse, dataset)) == runs

    def test_failed_and_hanging_runs_do_not_block_later_runs(
        self, years: tuple[Dataset, list[int]], warehouse: Connection
    ) -> None:
        dataset, runs = years
        self.replay(warehouse, runs)
        self.end(warehouse, runs[1])
        self.end(warehouse, runs[2])
        assert evaluation_queue.evaluate_pending_runs(dataset) == [], "the first is still running"
        self.end(warehouse, runs[0], "failed")
        assert evaluation_queue.evaluate_pending_runs(dataset) == runs[1:]
        self.replay(warehouse, runs)
        self.end(warehouse, runs[1])
        change(
            warehouse,
            "UPDATE millrace.training_run SET started_at = started_at - %s WHERE run = %s",
            evaluation_queue.PATIENCE,
            runs[0],
        )
        assert evaluation_queue.evaluate_pending_runs(dataset) == [runs[1]]


def test_a_version_that_is_older_than_the_champions_is_superseded(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = given(topic, signal(600))
    newer = train(dataset, seal(dataset, year(2014)))
    assert evaluation_queue.evaluate_pending_runs(dataset) == [newer]
    before = champions(warehouse, dataset)
    dataset.source.table = signal(600, seed=1, first=10_000)  # type: ignore[attr-defined]
    older = train(dataset, seal(dataset, year(2013)))
    assert evaluation_queue.evaluate_pending_runs(dataset) == []
    assert gates(warehouse, dataset)[older].state == "superseded"
    assert champions(warehouse, dataset) == before and len(before) == 1


def test_a_run_waits_for_an_earlier_landed_version(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = weather(topic)
    first = seal(dataset, year(2013))
    second = train(dataset, seal(dataset, year(2014)))
    assert evaluation_queue.evaluate_pending_runs(dataset) == []
    run = train(dataset, first)
    assert evaluation_queue.evaluate_pending_runs(dataset) == [run, second]


REAL: dict[str, list[dict[str, Any]]] = {
    "seattle_weather": [{"interval": year(number)} for number in registry.YEARS],
    # Overlapping samples: records that counted in one version must not count again in the next.
    "digits": [{"rows": rows, "seed": seed} for rows, seed in ((600, 1), (900, 2), (1500, 3))],
    "breast_cancer": [{"rows": rows, "seed": seed} for rows, seed in ((200, 1), (350, 2), (500, 3))],
    "diabetes": [{"rows": rows, "seed": seed} for rows, seed in ((200, 1), (300, 2), (440, 3))],
}


@pytest.mark.parametrize("name", REAL)
def test_verdicts_on_real_data_equal_those_of_an_independent_script(
    name: str, topic: Callable[..., str], warehouse: Connection
) -> None:
    """The stored models predict the stored versions, and the evidence is integrated without any code of the gate."""
    dataset = replace(definitions.get(name), name=topic(name).replace("-", "_"), promotion=evidence())
    runs = [train(dataset, seal(dataset, **version)) for version in REAL[name]]
    evaluation_queue.evaluate_pending_runs(dataset)
    rows = {(row.run, row.model): row for row in judged(warehouse, dataset)}
    wins = independent_gate.closer if dataset.kind == "regression" else independent_gate.right
    found = independent_gate.judge([trained(warehouse, run) for run in runs], wins)
    for run, models in zip(runs, found, strict=True):
        for model, expected in models.items():
            row = rows.pop((run, model))
            counts = (expected.outcome, expected.n01, expected.n10, expected.n, expected.promoted)
            assert (row.outcome, row.n01, row.n10, row.n, row.promoted) == counts, row.sentence
            assert np.log(row.e_value) == pytest.approx(expected.log_e, abs=1e-4)
            if row.n01 + row.n10:
                assert row.mcnemar_p == pytest.approx(independent_gate.mcnemar(row.n01, row.n10))
    assert not rows
    assert any(model.promoted for models in found for model in models.values()), "the first champion at least"


def trained(connection: Connection, run: int) -> independent_gate.Version:
    """A stored run: its version in Kafka, its models in the warehouse."""
    (row,) = ask(
        connection,
        "SELECT manifest FROM millrace.training_run JOIN millrace.dataset_version USING (version) WHERE run = %s",
        run,
    )
    manifest = decode(bytes(row.manifest))
    rows = reading.read(manifest)
    models = {}
    for model, fitted in ask(connection, "SELECT model, fitted FROM millrace.model_result WHERE run = %s", run):
        models[model] = skops.io.loads(bytes(fitted), skops.io.get_untrusted_types(data=bytes(fitted))).predict
    return independent_gate.Version(
        rows.train[manifest.record_id].to_pylist(),
        rows.test[manifest.record_id].to_pylist(),
        rows.test[manifest.target].to_numpy(),
        rows.test.select(manifest.features).to_pandas(),
        models,
    )


def test_a_record_counts_once_against_a_champion(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600))
    first = train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    # The same records and 200 more, then the same version with another seed.
    dataset.source.table = signal(800)  # type: ignore[attr-defined]
    version = seal(dataset)
    second = train(dataset, version)
    third = train(dataset, version, seed=7, run_id="again")
    assert evaluation_queue.evaluate_pending_runs(dataset) == [second, third]
    found = gates(warehouse, dataset)
    assert [found[run].champion_number for run in (first, second, third)] == [0, 1, 1]
    assert found[second].repeated == 0, "records count again against a new champion"
    assert found[third].repeated == found[third].test_rows - found[third].trained > 0
    (verdict,) = [row for row in judged(warehouse, dataset) if row.run == third]
    assert verdict.fresh_n == 0 and verdict.outcome == "inconclusive"
    assert verdict.n == found[second].test_rows - found[second].trained, "earlier evidence is kept"


def test_a_record_counts_once_for_all_lines(topic: Callable[..., str], warehouse: Connection) -> None:
    """A line that is added later may have been chosen by the outcomes of records that counted before."""
    dataset = given(topic, signal(400, strength=0.0))
    version = seal(dataset)
    train(dataset, version)
    evaluation_queue.evaluate_pending_runs(dataset)
    changed = replace(dataset, models=registry.weather_models)
    late = train(changed, version, run_id="late")
    evaluation_queue.evaluate_pending_runs(changed)
    rows = [row for row in judged(warehouse, dataset) if row.run == late]
    assert len(rows) == 3
    assert all(row.fresh_n == 0 for row in rows)
    assert all(row.challengers == 3 for row in rows), "tree was there before"


def test_every_candidate_of_a_grid_is_a_challenger_for_the_rest_of_the_tenure(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = given(topic, signal(800, strength=0.0))
    version = seal(dataset)
    runs = [train(dataset, version)]
    grid = {"tree": {"max_depth": [1, 2, 4], "min_samples_leaf": [1, 5]}}
    runs.append(train(dataset, version, run_id="grid", grid=grid))
    dataset.source.table = signal(800, strength=0.0, seed=1, first=10_000)  # type: ignore[attr-defined]
    runs.append(train(dataset, seal(dataset)))
    assert evaluation_queue.evaluate_pending_runs(dataset) == runs
    rows = judged(warehouse, dataset)
    assert [[row.challengers for row in rows if row.run == run] for run in runs] == [[1], [7] * 7, [7]]
    assert {row.threshold for row in rows} == {20, 140}
    searched = [row for row in rows if row.run == runs[1]]
    assert "tree max_depth=4, min_samples_leaf=5" in {row.model for row in searched}
    assert all(row.fresh_n == 0 for row in searched), "a search on records that have counted adds no evidence"


def test_records_that_the_champion_trained_on_do_not_count(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600), split=HashSplit(test=0.5, salt="a"))
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    changed = replace(dataset, split=HashSplit(test=0.5, salt="b"))
    run = train(changed, seal(changed))
    evaluation_queue.evaluate_pending_runs(changed)
    gate = gates(warehouse, dataset)[run]
    (champion,) = ask(warehouse, "SELECT * FROM millrace.artifact WHERE dataset = %s", dataset.name)
    trained_on = np.frombuffer(bytes(champion.trained_on), "<u8")
    counted = np.frombuffer(bytes(gate.counted), "<u8")
    assert len(trained_on) + 0 == 600 - gates(warehouse, dataset)[champion.run].test_rows
    assert gate.trained > 100 and len(counted) == gate.test_rows - gate.trained > 100
    assert not set(counted.tolist()) & set(trained_on.tolist())


def test_the_first_champion_must_beat_the_baseline(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600, strength=0.0))
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    (verdict,) = judged(warehouse, dataset)
    assert verdict.outcome == "inconclusive" and "the baseline" in verdict.sentence
    assert champions(warehouse, dataset) == []


def test_a_change_of_champion_during_a_gate_repeats_the_comparison(
    topic: Callable[..., str], warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = weather(topic)
    train_years(dataset)
    evaluation_queue.evaluate_pending_runs(dataset)
    assert len(champions(warehouse, dataset)) >= 2
    (run,) = [
        train(
            dataset,
            ask(
                warehouse,
                "SELECT version FROM millrace.version_order WHERE dataset = %s ORDER BY rank DESC LIMIT 1",
                dataset.name,
            )[0].version,
            seed=1,
            run_id="again",
        )
    ]
    compare = evaluation_queue.compare

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(evaluation_queue, "compare", compare)
        champion_history.roll_back(dataset.name, "somebody")
        return compare(*arguments)

    monkeypatch.setattr(evaluation_queue, "compare", overtaken)
    assert evaluation_queue.evaluate_pending_runs(dataset) == [run]
    assert gates(warehouse, dataset)[run].champion_number > champions(warehouse, dataset).index(
        next(c for c in champions(warehouse, dataset) if c[2] == "rollback")
    ), "judged against the champion that the rollback brought back"


def test_not_worse_and_fresher_replaces_an_old_champion(topic: Callable[..., str], warehouse: Connection) -> None:
    table = signal(4000, strength=0.9)
    policy = not_worse_and_fresher(margin=0.05, older_than="300 days")
    dataset = given(topic, table, promotion=policy)
    for number in (2020, 2021):
        dataset.source.table = signal(4000, strength=0.9, seed=number, first=number * 10_000)  # type: ignore[attr-defined]
        train(dataset, seal(dataset, year(number)))
        evaluation_queue.evaluate_pending_runs(dataset)
    assert [cause for _, _, cause in champions(warehouse, dataset)] == ["evidence", "evidence"]
    last = judged(warehouse, dataset)[-1]
    assert last.e_value < last.threshold and "it is not worse by 0.05" in last.sentence


def test_a_guard_rejects_what_the_evidence_would_promote(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600, strength=0.9), guards={"recall of yes": 0.5, "log_loss": 0.0001})
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    (verdict,) = judged(warehouse, dataset)
    assert verdict.outcome == "reject"
    assert len(verdict.failed_guards) == 1 and verdict.failed_guards[0].startswith("log_loss is")
    assert champions(warehouse, dataset) == []


def test_a_guard_on_a_slice_rejects(topic: Callable[..., str], warehouse: Connection) -> None:
    for metric, holds, fails in (("accuracy", 0.5, 0.999), ("log_loss", 2.0, 0.001)):
        for limit, outcome in ((holds, "promote"), (fails, "reject")):
            guards = {f"{metric} of side=True": limit}
            dataset = given(topic, signal(800, strength=0.9), slices={"side": "noise > 0"}, guards=guards)
            train(dataset, seal(dataset))
            evaluation_queue.evaluate_pending_runs(dataset)
            (verdict,) = judged(warehouse, dataset)
            assert verdict.outcome == outcome, verdict.sentence
        assert verdict.failed_guards[0].startswith(f"{metric} of side=True is ")


def test_a_regression_is_judged_by_the_smaller_error(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = replace(definitions.get("diabetes"), name=topic("diabetes").replace("-", "_"))
    run = train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    rows = [row for row in judged(warehouse, dataset) if row.run == run]
    assert {row.metric for row in rows} == {"smaller error"}
    assert [row.promoted for row in rows].count(True) == 1
    (live,) = ask(warehouse, "SELECT * FROM millrace.value WHERE dataset = %s", dataset.name)
    (stored,) = ask(
        warehouse, "SELECT value FROM millrace.result WHERE run = %s AND model = 'baseline' AND metric = 'rmse'", run
    )
    assert live.live == pytest.approx(stored.value)


def test_a_regression_far_off_on_a_few_records_is_rejected_unless_a_metric_decides(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    """The median of a skewed target is closer to most values than the mean, but its squared error is larger."""
    draw = np.random.default_rng(0)
    columns = {"id": np.arange(2000), "x": draw.normal(size=2000), "target": draw.lognormal(sigma=1.2, size=2000)}
    dataset = given(topic, pa.table(columns), kind="regression", models=registry.the_median)
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    (verdict,) = judged(warehouse, dataset)
    assert verdict.e_value > verdict.threshold
    assert verdict.outcome == "reject" and verdict.sentence.startswith("Reject median: ")
    assert verdict.failed_guards[0].startswith("rmse is ")

    error = Metric("mae", lambda y, found: float(np.abs(y - found).mean()), worth=0.1, greater_is_better=False)
    named = given(topic, pa.table(columns), kind="regression", models=registry.the_median, metric=error)
    train(named, seal(named))
    evaluation_queue.evaluate_pending_runs(named)
    (verdict,) = judged(warehouse, named)
    assert (verdict.outcome, verdict.failed_guards, verdict.promoted) == ("promote", [], True)


def test_a_metric_is_judged_by_the_paired_bootstrap(topic: Callable[..., str], warehouse: Connection) -> None:
    def recall(truth: Any, predicted: Any) -> float:
        return float(np.mean(predicted[truth == "yes"] == "yes"))

    dataset = given(topic, signal(600, strength=0.8), metric=Metric("recall of yes", recall, worth=0.02))
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    dataset.source.table = signal(600, strength=0.8, seed=1, first=10_000)  # type: ignore[attr-defined]
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    first, second = judged(warehouse, dataset)
    assert (first.metric, first.outcome) == ("recall of yes", "promote")
    assert first.n01 is None and first.gain > 0.2
    assert second.outcome == "inconclusive" and "recall of yes" in second.sentence


class TestIncomparable:
    """Versions that cannot be compared are stored with the reason and do not block later ones."""

    @pytest.fixture
    def champion(self, topic: Callable[..., str], warehouse: Connection) -> Iterator[Dataset]:
        dataset = given(topic, signal(600))
        train(dataset, seal(dataset))
        evaluation_queue.evaluate_pending_runs(dataset)
        yield dataset
        assert len(champions(warehouse, dataset)) == 1

    @pytest.mark.altered("records")
    def test_a_version_that_is_gone_from_kafka(self, champion: Dataset, warehouse: Connection) -> None:
        from confluent_kafka import TopicPartition

        champion.source.table = signal(600, seed=1)  # type: ignore[attr-defined]
        version = seal(champion)
        run = train(champion, version)
        (row,) = ask(warehouse, "SELECT manifest FROM millrace.dataset_version WHERE version = %s", version)
        ends: dict[int, int] = {}
        for message in decode(bytes(row.manifest)).messages:
            ends[message.partition] = max(message.offset + 1, ends.get(message.partition, 0))
        places = [TopicPartition(champion.topic, partition, offset) for partition, offset in ends.items()]
        brokers = client.admin()
        for future in brokers.delete_records(places).values():
            future.result(30)
        champion.source.table = signal(600, seed=2, first=5000)  # type: ignore[attr-defined]
        later = train(champion, seal(champion))
        assert evaluation_queue.evaluate_pending_runs(champion) == [run, later]
        found = gates(warehouse, champion)
        assert found[run].state == "incomparable" and "trimmed" in found[run].reason
        assert found[later].state == "judged"

    def test_a_version_without_a_column_of_the_champion(self, champion: Dataset, warehouse: Connection) -> None:
        champion.source.table = signal(600, seed=1).drop_columns(["noise"])  # type: ignore[attr-defined]
        run = train(champion, seal(champion))
        evaluation_queue.evaluate_pending_runs(champion)
        assert "[features-incompatible]" in gates(warehouse, champion)[run].reason
        assert "noise" in gates(warehouse, champion)[run].reason
