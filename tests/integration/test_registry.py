"""The registry on a real server: champions change one at a time, are checked when loaded, and have a value."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import pyarrow as pa
import pytest

from include.datasets import Dataset, manual
from include.error_codes import Code
from include.errors import NonRetryableError
from include.promotion import approval, evaluation_queue, value
from include.registry import champion, champion_history
from include.registry.artifact import UntrustedArtifact
from include.registry.champion_history import ChampionChanged
from include.registry.model import IncompatibleModel
from include.registry.probe import PredictionMismatch
from tests.errors import raises
from tests.integration.registry import (
    YEARS,
    ask,
    champions,
    change,
    given,
    seal,
    signal,
    train,
    train_years,
    weather,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

TRIES = 3


@dataclass
class Outcomes:
    """The results of actions at the same moment: what the winners returned, and the errors of the others."""

    winners: list[Any]
    errors: list[str]


def at_once(*actions: Callable[[], Any]) -> Outcomes:
    start, outcomes = threading.Barrier(len(actions)), Outcomes([], [])

    def act(action: Callable[[], Any]) -> None:
        start.wait()
        try:
            outcomes.winners.append(action())
        except NonRetryableError as error:
            outcomes.errors.append(str(error))

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def better(dataset: Dataset, version: int) -> int:
    """Trains on a new version of easy records. Returns the run, which was compared but not promoted."""
    dataset.source.table = signal(600, seed=version, first=version * 10_000)  # type: ignore[attr-defined]
    run = train(dataset, seal(dataset))
    assert evaluation_queue.evaluate_pending_runs(dataset) == [run]
    return run


@pytest.fixture
def decided(topic: Callable[..., str], warehouse: Connection) -> Dataset:
    """A dataset with the policy ``manual()`` that has had two champions."""
    dataset = given(topic, signal(600), promotion=manual())
    for version in (1, 2):
        run = better(dataset, version)
        assert len(champions(warehouse, dataset)) == version - 1, "nothing is promoted without an approval"
        approval.answer(run, True, "tree", "ann")
    return dataset


def test_two_approvals_at_the_same_moment(decided: Dataset, warehouse: Connection) -> None:
    for version in range(3, 3 + TRIES):
        runs = [better(decided, version), better(decided, version + 100)]
        outcomes = at_once(
            lambda runs=runs: approval.answer(runs[0], True, "tree", "ann"),  # type: ignore[misc]
            lambda runs=runs: approval.answer(runs[1], True, "tree", "bob"),  # type: ignore[misc]
        )
        assert (len(outcomes.winners), len(outcomes.errors)) == (1, 1)
        assert "[champion-changed]" in outcomes.errors[0]
        assert len(champions(warehouse, decided)) == version
        answers = ask(warehouse, "SELECT answer FROM millrace.approval WHERE run = ANY (%s) ORDER BY answer", runs)
        assert [row.answer for row in answers] == ["approved", "refused"]


def test_an_approval_twice_at_the_same_moment(decided: Dataset, warehouse: Connection) -> None:
    run = better(decided, 3)
    outcomes = at_once(*[lambda who=who: approval.answer(run, True, "tree", who) for who in ("ann", "bob")])
    assert (len(outcomes.winners), len(outcomes.errors)) == (1, 1)
    assert "[already-answered]" in outcomes.errors[0] and "approved" in outcomes.errors[0]
    assert len(champions(warehouse, decided)) == 3


def test_an_approval_and_a_rollback_at_the_same_moment(decided: Dataset, warehouse: Connection) -> None:
    for version in range(3, 3 + TRIES):
        before = len(champions(warehouse, decided))
        run = better(decided, version)
        outcomes = at_once(
            lambda run=run: approval.answer(run, True, "tree", "ann"),  # type: ignore[misc]
            lambda before=before: champion_history.roll_back(decided.name, "bob", expected=before),  # type: ignore[misc]
        )
        assert (len(outcomes.winners), len(outcomes.errors)) == (1, 1)
        assert "[champion-changed]" in outcomes.errors[0]
        assert len(champions(warehouse, decided)) == before + 1
        assert len(ask(warehouse, "SELECT FROM millrace.champion WHERE dataset = %s", decided.name)) == 1
        if champions(warehouse, decided)[-1][2] == "rollback":
            approval.answer(better(decided, version + 100), True, "tree", "ann")


def test_two_rollbacks_at_the_same_moment(decided: Dataset, warehouse: Connection) -> None:
    approval.answer(better(decided, 3), True, "tree", "ann")
    outcomes = at_once(
        *[lambda who=who: champion_history.roll_back(decided.name, who, expected=3) for who in ("ann", "bob")]
    )
    assert (len(outcomes.winners), len(outcomes.errors)) == (1, 1)
    assert len(champions(warehouse, decided)) == 4


def test_the_database_refuses_a_second_champion_and_a_gap(decided: Dataset, warehouse: Connection) -> None:
    copy = (
        "INSERT INTO millrace.champion_change (dataset, number, artifact, cause, decider, reason) SELECT dataset, {},"
    )
    copy += " artifact, cause, decider, reason FROM millrace.champion_change WHERE dataset = %s AND number = 2"
    for number, broken in ((2, psycopg2.errors.UniqueViolation), (4, psycopg2.errors.ForeignKeyViolation)):
        with pytest.raises(broken):
            change(warehouse, copy.format(number), decided.name)
        warehouse.rollback()
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        change(warehouse, "DELETE FROM millrace.champion_change WHERE dataset = %s AND number = 1", decided.name)
    warehouse.rollback()


def test_an_approval_is_refused_when_the_champion_has_changed(decided: Dataset, warehouse: Connection) -> None:
    run = better(decided, 3)
    champion_history.roll_back(decided.name, "bob")
    with raises(Code.CHAMPION_CHANGED, decided.name, "tree of version", "rollback (bob)", kind=ChampionChanged):
        approval.answer(run, True, "tree", "ann")
    with raises(Code.ALREADY_ANSWERED, f"run {run}", "refused", "ann", kind=NonRetryableError):
        approval.answer(run, True, "tree", "ann")
    assert [cause for _, _, cause in champions(warehouse, decided)] == ["approval", "approval", "rollback"]


def test_a_declined_promotion_changes_nothing(decided: Dataset, warehouse: Connection) -> None:
    run = better(decided, 3)
    approval.apply(
        run,
        {"chosen_options": ["Reject"], "params_input": {"model": ""}, "responded_by_user": {"id": "1", "name": "ann"}},
    )
    (row,) = ask(warehouse, "SELECT * FROM millrace.approval WHERE run = %s", run)
    assert (row.answer, row.decider) == ("declined", "ann")
    assert len(champions(warehouse, decided)) == 2


def test_a_model_that_was_trained_again_is_not_promoted_on_old_evidence(
    decided: Dataset, warehouse: Connection
) -> None:
    run = better(decided, 3)
    change(warehouse, "UPDATE millrace.model_result SET fitted_sha256 = repeat('0', 64) WHERE run = %s", run)
    with raises(Code.MODEL_REPLACED, f"tree of run {run}", kind=NonRetryableError):
        approval.answer(run, True, "tree", "ann")
    with raises(Code.UNKNOWN_MODEL, "'forest'", "it has tree.", f"promote__{decided.name}", kind=NonRetryableError):
        approval.answer(run, True, "forest", "ann")


def test_a_run_that_was_not_judged_cannot_be_approved(warehouse: Connection) -> None:
    for ask_or_answer in (lambda: approval.form(99_999), lambda: approval.answer(99_999, True, "tree", "ann")):
        with raises(Code.RUN_NOT_JUDGED, 99999, kind=NonRetryableError):
            ask_or_answer()


def test_the_form_shows_the_evidence(decided: Dataset) -> None:
    form = approval.form(better(decided, 3))
    assert form.title.startswith(f"Promote a model of {decided.name}, version ")
    assert "Champion: **tree of version" in form.text
    assert "only the champion on" in form.text and "A person decides." in form.text
    assert "No model is recommended" in form.text
    assert (form.models, form.recommended) == (["tree"], None), "the baseline is never promoted"


def test_a_retirement_that_is_no_longer_the_last_change_cannot_be_undone(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = given(topic, signal(600), promotion=manual())
    approval.answer(better(dataset, 1), True, "tree", "ann")
    champion_history.retire(dataset.name, "ann", "tired of it")
    champion_history.roll_back(dataset.name, "bob")
    with raises(Code.CHAMPION_CHANGED, dataset.name, kind=ChampionChanged):
        champion_history.roll_back(dataset.name, "cid", expected=2)


def test_who_changed_the_champion_first_is_named(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600), promotion=manual())
    for version in (1, 2):
        approval.answer(better(dataset, version), True, "tree", "ann")
    champion_history.retire(dataset.name, "bob", "wrong", expected=2)
    for late in (
        lambda: champion_history.roll_back(dataset.name, "cid", expected=2),
        lambda: champion_history.retire(dataset.name, "cid", "wrong, too", expected=2),
    ):
        with raises(Code.CHAMPION_CHANGED, dataset.name, "no champion", "retirement", "bob", kind=ChampionChanged):
            late()  # type: ignore[no-untyped-call]
    champion_history.roll_back(dataset.name, "dan", expected=3)
    with raises(Code.CHAMPION_CHANGED, "rollback", "dan", kind=ChampionChanged):
        champion_history.roll_back(dataset.name, "cid", expected=3)
    assert [cause for *_, cause in champions(warehouse, dataset)][2:] == ["retirement", "rollback"]


def test_rollbacks_restore_one_champion_after_the_other(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = given(topic, signal(600), promotion=manual())
    with raises(Code.CHAMPION_MISSING, dataset.name):
        champion_history.roll_back(dataset.name, "ann")
    for version in (1, 2, 3):
        approval.answer(better(dataset, version), True, "tree", "ann")
    first, second, third = champions(warehouse, dataset)
    assert champion_history.roll_back(dataset.name, "bob").rollback_to == 1
    assert champion_history.roll_back(dataset.name, "bob").decider == "bob"
    assert [row[1] for row in champions(warehouse, dataset)] == [
        row[1] for row in (first, second, third, second, first)
    ]
    with raises(Code.NO_PREVIOUS_CHAMPION, dataset.name, first[1]):
        champion_history.roll_back(dataset.name, "bob")
    approval.answer(better(dataset, 4), True, "tree", "ann")
    assert champion_history.roll_back(dataset.name, "bob").version == first[1]


def test_the_champion_predicts_in_two_lines(decided: Dataset) -> None:
    rows = signal(50, seed=9).to_pandas()
    predicted = champion(decided.name).predict(rows)
    assert (predicted == rows["target"]).mean() > 0.95
    assert (champion(decided.name).predict(pa.Table.from_pandas(rows)) == predicted).all()
    assert (champion(decided.name).predict(rows.assign(x=rows["x"].round().astype(int))) != predicted).sum() < 25


@pytest.mark.parametrize(
    ("spoil", "values"),
    [
        (lambda rows: rows.drop(columns="x"), ["column x;"]),
        (lambda rows: rows.assign(x="large"), ["x is ", "string and must be double"]),
        (lambda rows: rows.assign(x=[[1.0]] * len(rows)), ["x is list"]),
    ],
)
def test_the_champion_refuses_other_rows(decided: Dataset, spoil: Callable[[Any], Any], values: list[str]) -> None:
    with raises(Code.FEATURES_INCOMPATIBLE, *values, kind=IncompatibleModel):
        champion(decided.name).predict(spoil(signal(50).to_pandas()))


def test_without_a_champion_there_is_an_error(warehouse: Connection) -> None:
    with raises(Code.CHAMPION_MISSING, "'nothing'"):
        champion("nothing")


def test_a_changed_byte_in_the_database_is_refused(decided: Dataset, warehouse: Connection) -> None:
    change(warehouse, "UPDATE millrace.artifact SET content = set_byte(content, 99, get_byte(content, 99) # 1)")
    with raises(Code.ARTIFACT_CHANGED, kind=UntrustedArtifact):
        champion(decided.name)


def test_a_champion_that_predicts_something_else_is_refused(decided: Dataset, warehouse: Connection) -> None:
    rows = ask(warehouse, "SELECT artifact, probe FROM millrace.artifact WHERE dataset = %s", decided.name)
    for row in rows:
        with pa.ipc.open_stream(bytes(row.probe)) as reader:
            table = reader.read_all()
        turned = pa.array(["no" if value == "yes" else "yes" for value in table["prediction"].to_pylist()])
        sink = pa.BufferOutputStream()
        other = table.set_column(table.num_columns - 1, "prediction", turned)
        with pa.ipc.new_stream(sink, other.schema) as writer:
            writer.write_table(other)
        statement = "UPDATE millrace.artifact SET probe = %s WHERE artifact = %s"
        change(warehouse, statement, sink.getvalue().to_pybytes(), row.artifact)
    with raises(Code.PREDICTION_MISMATCH, "32 of 32", kind=PredictionMismatch):
        champion(decided.name)


def test_the_value_is_the_accuracy_of_the_three_roles(topic: Callable[..., str], warehouse: Connection) -> None:
    dataset = weather(topic)
    runs = train_years(dataset)
    evaluation_queue.evaluate_pending_runs(dataset)
    frame = dataset.source.rows(None, None).to_pandas()
    when = frame["date"].astype("datetime64[ns]").dt.year
    features = dataset.feature_names(list(frame.columns))
    history = ask(warehouse, "SELECT * FROM millrace.champion_history WHERE dataset = %s ORDER BY number", dataset.name)
    live: tuple[int, str] | None = None
    weights, total = [], {"live": 0.0, "never": 0.0, "newest": 0.0}
    for run, test in zip(runs, YEARS, strict=True):
        (row,) = ask(warehouse, "SELECT * FROM millrace.value WHERE run = %s", run)

        def worth(of: tuple[int, str], test: int = test) -> float:
            model = dataset.estimators()[of[1]]
            if of[1] == "tree":
                model.set_params(random_state=0)
            trained, tested = frame[when < of[0]], frame[when == test]
            fitted = model.fit(trained[features], trained["weather"])
            return float(fitted.score(tested[features], tested["weather"]))

        if live is None:
            assert row.live == row.never == worth((test, "baseline"))
        else:
            first = (YEARS[runs.index(history[0].run)], history[0].model)
            expected = {"live": worth(live), "never": worth(first), "newest": worth((test, live[1]))}
            assert {role: getattr(row, role) for role in expected} == pytest.approx(expected)
            weights.append(row.rows)
            total = {role: total[role] + expected[role] * row.rows for role in total}
        promoted = [found for found in history if found.run == run]
        live = (test, promoted[0].model) if promoted else live
    (summary,) = ask(warehouse, "SELECT * FROM millrace.value_of_retraining WHERE dataset = %s", dataset.name)
    averages = {role: total[role] / sum(weights) for role in total}
    assert {role: getattr(summary, role) for role in averages} == pytest.approx(averages)
    assert summary.gained == pytest.approx(averages["live"] - averages["never"])
    assert (summary.trainings, summary.promotions, summary.useless) == (3, len(history), 3 - len(history))
    shown = value.summary(warehouse, dataset.name)
    assert shown and asdict(shown) == {name: getattr(summary, name) for name in asdict(shown)}
    versions = value.by_version(warehouse, dataset.name)
    rows = ask(warehouse, "SELECT * FROM millrace.value WHERE dataset = %s ORDER BY rank", dataset.name)
    names = {**{name: name for name in asdict(versions[0])}, "until": "interval_end"}
    assert [asdict(version) for version in versions] == [
        {name: getattr(row, column) for name, column in names.items()} for row in rows
    ]
    sentences = value.summary_lines(shown, versions)
    assert f"live {averages['live']:.3f}, never retrained {averages['never']:.3f}" in sentences[0]
