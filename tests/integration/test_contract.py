"""Columns, types and labels that change from one version to the next: judged where that is exact, else not compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from include.datasets import Dataset, Metric, manual
from include.error_codes import Code
from include.promotion import approval, evaluation_queue, value
from include.registry import artifact, champion, champion_history
from include.training import fitting, run
from tests.errors import raises
from tests.integration.registry import Given, ask, change, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def tolerant() -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return {"boosting": HistGradientBoostingClassifier(max_iter=10)}


def imputing() -> dict[str, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {"logistic": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())}


def strict() -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    return {"logistic": LogisticRegression()}


def counted(rows: int, *, seed: int = 0, first: int = 0) -> pa.Table:
    """Records with a whole-number feature ``count``; the target follows from it."""
    draw = np.random.default_rng(seed)
    count = draw.integers(0, 100, rows)
    return pa.table({"id": np.arange(first, first + rows), "count": count, "target": (count > 50).astype(int)})


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array(values))


def later(dataset: Dataset, rows: pa.Table, **changes: Any) -> Dataset:
    return replace(dataset, source=Given(rows), **changes)


def judge(dataset: Dataset) -> int:
    """Publishes, trains and judges. Returns the run."""
    number = train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    return number


def gate(connection: Connection, number: int) -> Any:
    (found,) = ask(connection, "SELECT state, reason FROM millrace.gate WHERE run = %s", number)
    return found


def test_a_whole_number_that_gets_a_fraction(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, counted(400), models=strict)
    judge(dataset)
    rows = counted(400, seed=1, first=1000)
    fractions = rows["count"].to_pylist()
    dataset = later(dataset, with_column(rows, "count", [2.5, *map(float, fractions[1:-1]), 1e300]))
    assert gate(warehouse, judge(dataset)).state == "judged"


@pytest.mark.parametrize(
    ("before", "after"), [(pa.null(), pa.float64()), (pa.bool_(), pa.int64()), (pa.int64(), pa.null())], ids=str
)
def test_a_column_that_gets_its_first_values_or_loses_them(
    topic: Callable[..., str], warehouse: Connection, before: pa.DataType, after: pa.DataType
) -> None:
    def typed(rows: pa.Table, type_: pa.DataType) -> pa.Table:
        bits = [value > 50 for value in rows["count"].to_pylist()]
        column = pa.nulls(len(bits)) if pa.types.is_null(type_) else pa.array(bits).cast(pa.int8()).cast(type_)
        return rows.append_column("more", column)

    dataset = given(topic, typed(counted(300), before), models=imputing)
    judge(dataset)
    dataset = later(dataset, typed(counted(300, seed=1, first=1000), after))
    assert gate(warehouse, judge(dataset)).state == "judged"


def test_a_number_that_becomes_text_is_incomparable_and_the_remedy_is_named(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = given(topic, counted(400), models=tolerant)
    judge(dataset)
    rows = counted(400, seed=1, first=1000)
    dataset = later(dataset, with_column(rows, "count", list(map(str, rows["count"].to_pylist()))), models=encoding)
    found = gate(warehouse, judge(dataset))
    assert found.state == "incomparable"
    assert "count is string and must be int64" in found.reason
    assert f"./millrace champion {dataset.name} --retire" in found.reason


def encoding() -> dict[str, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": make_pipeline(OneHotEncoder(handle_unknown="ignore"), DecisionTreeClassifier())}


def test_values_that_the_champion_cannot_predict_make_a_run_incomparable(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = given(topic, counted(400), models=strict)
    judge(dataset)
    rows = counted(400, seed=1, first=1000)
    # The strict champion has to predict a test row without a value.
    dataset = later(dataset, with_column(rows, "count", [None] * 50 + rows["count"].to_pylist()[50:]), models=imputing)
    found = gate(warehouse, judge(dataset))
    assert found.state == "incomparable"
    assert "Input X contains NaN" in found.reason


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (lambda old: [*map(str, old[:-1]), "unknown"], "predicts 'target' as int64 (0, 1)"),
        (lambda old: [value + 7 for value in old], "predicts the classes 0, 1"),
    ],
    ids=["text", "other classes"],
)
def test_incomparable_labels_do_not_give_a_verdict(
    topic: Callable[..., str], warehouse: Connection, labels: Callable[[list[int]], list[Any]], named: str
) -> None:
    dataset = given(topic, counted(400), models=tolerant)
    judge(dataset)
    rows = counted(400, seed=1, first=1000)
    dataset = later(dataset, with_column(rows, "target", labels(rows["target"].to_pylist())))
    number = judge(dataset)
    found = gate(warehouse, number)
    assert found.state == "incomparable"
    assert named in found.reason and "[target-incompatible]" in found.reason
    assert ask(warehouse, "SELECT FROM millrace.verdict WHERE run = %s", number) == []
    assert len(ask(warehouse, "SELECT FROM millrace.champion_change WHERE dataset = %s", dataset.name)) == 1


@pytest.mark.parametrize("type_", [pa.float64(), pa.bool_()], ids=str)
def test_labels_of_another_type_with_the_same_values_are_judged(
    topic: Callable[..., str], warehouse: Connection, type_: pa.DataType
) -> None:
    dataset = given(topic, counted(400), models=tolerant)
    judge(dataset)
    rows = counted(400, seed=1, first=1000)
    dataset = later(dataset, rows.set_column(2, "target", rows["target"].cast(type_)))
    number = judge(dataset)
    assert gate(warehouse, number).state == "judged"
    (verdict,) = ask(warehouse, "SELECT champion_accuracy FROM millrace.verdict WHERE run = %s", number)
    assert verdict.champion_accuracy > 0.9


@pytest.mark.parametrize("changes", [{"target": "count"}, {"kind": "regression"}], ids=["target", "kind"])
def test_another_question_is_never_a_verdict(
    topic: Callable[..., str], warehouse: Connection, changes: dict[str, Any]
) -> None:
    dataset = given(topic, counted(400), models=tolerant)
    judge(dataset)
    rows = counted(400, seed=1, first=1000).append_column("x", pa.array(np.arange(400.0)))
    rows = with_column(rows, "count", [value % 3 for value in rows["count"].to_pylist()])
    dataset = later(dataset, rows, features=["x"], models=number_models if "kind" in changes else tolerant, **changes)
    found = gate(warehouse, judge(dataset))
    assert found.state == "incomparable"
    assert "predicts 'target' (classification)" in found.reason and "[target-incompatible]" in found.reason


def number_models() -> dict[str, Any]:
    from sklearn.linear_model import LinearRegression

    return {"line": LinearRegression()}


def test_a_dropped_column_and_a_new_beginning(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600), models=tolerant)
    judge(dataset)
    first = champion_history.current(warehouse, dataset.name)
    assert first is not None
    warehouse.rollback()
    dataset = later(dataset, signal(600, seed=1, first=1000).rename_columns(["id", "y", "noise", "target"]))
    found = gate(warehouse, judge(dataset))
    assert found.state == "incomparable"
    assert "needs the column x; the rows have id, y, noise, target" in found.reason
    assert f"./millrace champion {dataset.name} --retire" in found.reason

    assert champion_history.retire(dataset.name, "ann", "x is not measured any more").number == 1
    with raises(Code.CHAMPION_MISSING, dataset.name):
        champion(dataset.name)
    with raises(Code.CHAMPION_MISSING, dataset.name):
        champion_history.retire(dataset.name, "ann", "")
    # The version that could not be compared is trained again, and its model meets the baseline.
    train(dataset, seal(dataset), run_id="again")
    evaluation_queue.evaluate_pending_runs(dataset)
    present = champion_history.current(warehouse, dataset.name)
    warehouse.rollback()
    assert present is not None and (present.number, present.cause, present.rollback_to) == (3, "evidence", 1)
    (row,) = ask(
        warehouse,
        "SELECT cause, decider, reason FROM millrace.champion_change WHERE dataset = %s AND number = 2",
        dataset.name,
    )
    assert tuple(row) == ("retirement", "ann", "x is not measured any more")
    # Later versions are compared with the new champion, and what retraining gained begins with it.
    dataset = later(dataset, signal(600, seed=2, first=2000).rename_columns(["id", "y", "noise", "target"]))
    assert gate(warehouse, judge(dataset)).state == "judged"
    summary = value.summary(warehouse, dataset.name)
    assert summary is not None and summary.gained == 0
    warehouse.rollback()
    assert champion_history.roll_back(dataset.name, "bob").model == first.model


def test_a_retired_champion_can_be_brought_back(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600))
    judge(dataset)
    champion_history.retire(dataset.name, "ann", "by mistake")
    back = champion_history.roll_back(dataset.name, "ann")
    assert (back.number, back.cause) == (3, "rollback")
    assert champion(dataset.name).predict(signal(5)).shape == (5,)
    with raises(Code.NO_PREVIOUS_CHAMPION, dataset.name):
        champion_history.roll_back(dataset.name, "ann")


def spoil(connection: Connection, number: int) -> None:
    """Replaces the model of a run with one that contains a type that is not allowed, and a correct digest."""
    from sklearn.preprocessing import FunctionTransformer

    content = artifact.dumps(FunctionTransformer(len))
    change(
        connection,
        "UPDATE millrace.model_result SET fitted = %s, fitted_sha256 = %s WHERE run = %s AND model <> 'baseline'",
        *(content, hashlib.sha256(content).hexdigest(), number),
    )


def recall(truth: Any, predicted: Any) -> float:
    return float(np.mean(predicted[truth == "yes"] == "yes"))


@pytest.mark.altered
@pytest.mark.parametrize("metric", [None, Metric("recall of yes", recall, worth=0.02)], ids=["accuracy", "metric"])
def test_a_model_that_cannot_be_loaded_is_not_promoted(
    topic: Callable[..., str], warehouse: Connection, metric: Metric | None
) -> None:
    dataset = given(topic, signal(600), metric=metric)
    number = train(dataset, seal(dataset))
    spoil(warehouse, number)
    evaluation_queue.evaluate_pending_runs(dataset)
    (verdict,) = ask(warehouse, "SELECT outcome, sentence FROM millrace.verdict WHERE run = %s", number)
    assert verdict.outcome == "reject"
    assert "types that are not allowed: builtins.len" in verdict.sentence
    with raises(Code.MODEL_UNUSABLE, "tree", "builtins.len"):
        approval.answer(number, True, "tree", "ann")
    assert ask(warehouse, "SELECT FROM millrace.champion_change WHERE dataset = %s", dataset.name) == []


@pytest.mark.parametrize("metric", [None, Metric("recall of yes", recall, worth=0.02)], ids=["accuracy", "metric"])
def test_a_model_is_loaded_once_before_it_is_promoted(
    topic: Callable[..., str], warehouse: Connection, monkeypatch: pytest.MonkeyPatch, metric: Metric | None
) -> None:
    loaded: Counter[str] = Counter()

    def counted_loads(content: bytes, sha256: str, *more: Any) -> Any:
        loaded[sha256] += 1
        return original(content, sha256, *more)

    original = artifact.loads
    # Where every answer is right, a metric has no variance, and so no evidence.
    dataset = given(topic, signal(600, strength=0.8), metric=metric)
    number = train(dataset, seal(dataset))
    monkeypatch.setattr(artifact, "loads", counted_loads)
    evaluation_queue.evaluate_pending_runs(dataset)
    (present,) = ask(warehouse, "SELECT model, run, sha256 FROM millrace.champion WHERE dataset = %s", dataset.name)
    assert (present.model, present.run) == ("tree", number)
    # Where a metric is compared, the baseline predicts as well.
    assert loaded[present.sha256] == 1 and len(loaded) == loaded.total() == (1 if metric is None else 2)

    dataset = later(dataset, signal(600, strength=0.8, seed=1, first=1000), promotion=manual())
    number = judge(dataset)
    loaded.clear()
    approval.answer(number, True, "tree", "ann")
    assert list(loaded.values()) == [1]


def test_an_imputer_reaches_the_registry_and_loads(topic: Callable[..., str], warehouse: Connection) -> None:
    rows = signal(600)
    dataset = given(topic, with_column(rows, "x", [None, *rows["x"].to_pylist()[1:]]), models=imputing)
    judge(dataset)
    assert champion(dataset.name).predict(rows).shape == (600,)


def unnamed() -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return {**strict(), "unnamed": make_pipeline(FunctionTransformer(lambda rows: rows), LogisticRegression())}


def test_a_model_that_cannot_be_stored_fails_the_plan(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, counted(400), models=unnamed)
    version = seal(dataset)
    with raises(Code.UNTRUSTED_TYPE, "'unnamed'", "<lambda>"):
        run.begin(dataset, "run", {"version": version}, "test")
    assert len(run.begin(dataset, "run", {"version": version, "models": ["logistic"]}, "test")) == 2


def test_rows_that_a_model_cannot_use_are_an_error(topic: Callable[..., str], warehouse: Connection) -> None:
    rows = counted(400)
    dataset = given(topic, with_column(rows, "count", [None, *rows["count"].to_pylist()[1:]]), models=strict)
    planned = run.begin(dataset, "run", {"version": seal(dataset)}, "test")
    with raises(Code.FIT_FAILED, "ValueError: Input X contains NaN"):
        for task in planned:
            fitting.fit(dataset, task["run"], task["model"])


def test_a_slice_on_text_with_empty_cells(topic: Callable[..., str], warehouse: Connection) -> None:
    rows = counted(400)
    shops = pa.array([None if number % 3 == 0 else "ab"[number % 2] for number in range(400)])
    quarters = pa.array([None if number % 5 == 0 else float(number % 4) for number in range(400)])
    rows = rows.append_column("shop", shops).append_column("quarter", quarters)
    slices = {"shop": "shop", "quarter": "quarter", "same": "shop == 'a'", "wrong": "shop + 1", "whole": "1"}
    dataset = given(topic, rows, features=["count"], slices=slices, models=tolerant)
    number = train(dataset, seal(dataset))
    found = ask(
        warehouse,
        "SELECT DISTINCT slice, part FROM millrace.slice_metric JOIN millrace.model_result USING (result) "
        "WHERE run = %s ORDER BY 1, 2",
        number,
    )
    parts = {name: [row.part for row in found if row.slice == name] for name in slices}
    assert parts["shop"] == ["a", "b", "missing"]
    assert parts["quarter"] == ["0", "1", "2", "3", "missing"]
    assert parts["same"] == ["False", "True"]
    assert parts["wrong"] == parts["whole"] == []


def test_classes_are_named_without_a_fraction(topic: Callable[..., str], warehouse: Connection) -> None:
    rows = counted(400)
    dataset = given(
        topic,
        rows.set_column(2, "target", rows["target"].cast(pa.float64())),
        models=tolerant,
        guards={"recall of 1": 0.5},
    )
    number = judge(dataset)
    (verdict,) = ask(warehouse, "SELECT outcome FROM millrace.verdict WHERE run = %s", number)
    assert verdict.outcome == "promote"


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinite_features_are_an_error_of_publishing(
    topic: Callable[..., str], warehouse: Connection, value: float
) -> None:
    rows = counted(400)
    numbers = [float(number) for number in rows["count"].to_pylist()]
    for place in (7, 8, 30, 300):
        numbers[place] = value
    numbers[9], numbers[10] = float("nan"), None  # type: ignore[call-overload]
    dataset = given(topic, with_column(rows, "count", numbers))
    with raises(Code.VALUES_INFINITE, "count in 4 rows, the first with id 7, 8, 30."):
        seal(dataset)
    # Rows that are not published may have infinite values.
    labels = [None if place in (7, 8, 30, 300) else label for place, label in enumerate(rows["target"].to_pylist())]
    seal(later(dataset, with_column(with_column(rows, "count", numbers), "target", labels), models=imputing))


def test_a_target_that_is_nan_is_missing(
    topic: Callable[..., str], warehouse: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    rows = counted(400)
    labels = pa.array([float("nan"), None, *map(float, rows["target"].to_pylist()[2:])], from_pandas=False)
    dataset = given(topic, rows.set_column(2, "target", labels), models=tolerant)
    train(dataset, seal(dataset))
    assert "2 rows without a value of target are left out" in caplog.text
    dataset = later(dataset, rows.set_column(2, "target", pa.array([float("inf")] * 400)), kind="regression")
    with raises(Code.VALUES_INFINITE, "'target' is infinite in 400 rows, the first with id 0, 1, 2"):
        seal(dataset)


def test_an_id_that_is_nan_is_missing(topic: Callable[..., str]) -> None:
    rows = counted(400)
    ids = pa.array([float("nan"), *map(float, range(1, 400))], from_pandas=False)
    with raises(Code.RECORD_ID_NOT_UNIQUE, "'id' is null in 1 of 400 rows"):
        seal(given(topic, rows.set_column(0, "id", ids)))
