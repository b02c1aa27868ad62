"""Models that learn in batches: equal to any other, never all rows in memory, and continued after a kill."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import doubles
from include.datasets import Dataset, File, HashSplit
from include.error_codes import Code
from include.errors import NonRetryableError
from include.registry import artifact
from include.training import checkpoint, dispatch, fitting, limits, out_of_core, partial_fit, run
from include.training.checkpoint import Checkpoint
from include.training.partial_fit import PartialFit
from include.training.preparation import prepared
from include.training.progress import Progress
from include.versions import catalog, reading
from include.versions.manifest import Interval, Manifest
from include.versions.publication import publish
from tests.errors import raises
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

ROWS = 40_000


def models() -> dict[str, Any]:
    from sklearn.linear_model import SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    return {
        "sgd": make_pipeline(StandardScaler(), MinMaxScaler(), SGDClassifier(loss="log_loss", average=True)),
        "mlp": make_pipeline(StandardScaler(), MLPClassifier((8,))),
        "bayes": make_pipeline(Normalizer(), GaussianNB()),
        "tree": DecisionTreeClassifier(max_depth=3),
    }


def regressors() -> dict[str, Any]:
    from sklearn.linear_model import SGDRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {"sgd": make_pipeline(StandardScaler(), SGDRegressor())}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.write(tmp_path_factory.mktemp("numbers") / "rows.parquet", ROWS)


@pytest.fixture
def dataset(warehouse: Connection, topic: Callable[..., str], file: Path) -> Dataset:
    return Dataset(
        name=topic("numbers").replace("-", "_"),
        source=File(str(file)),
        record_id="id",
        target="target",
        split=HashSplit(test=0.25),
        models=models,
        out_of_core="always",
        passes=2,
    )


def sealed(dataset: Dataset) -> Manifest:
    publish(dataset, Interval())
    dispatch.land("test")
    return catalog.find(dataset.name)


def result(warehouse: Connection, number: int, model: str) -> dict[str, Any]:
    with warehouse.cursor() as cursor:
        cursor.execute(
            "SELECT fitted, fitted_sha256, outcomes, passes, peak_memory_mb, result FROM millrace.model_result "
            "WHERE run = %s AND model = %s",
            (number, model),
        )
        fitted, sha256, outcomes, passes, peak, key = cursor.fetchone()  # type: ignore[misc]
        cursor.execute("SELECT name, value FROM millrace.metric WHERE result = %s", (key,))
        metrics = dict(cursor.fetchall())
        cursor.execute("SELECT count(*) FROM millrace.checkpoint WHERE run = %s", (number,))
        left = cursor.fetchone()
    warehouse.rollback()
    assert left == (0,), "a stored result deletes its checkpoint"
    model_ = artifact.loads(bytes(fitted), sha256)
    return {"model": model_, "outcomes": bytes(outcomes), "passes": passes, "metrics": metrics, "peak_mb": peak}


def begun(dataset: Dataset, name: str) -> int:
    return int(run.begin(dataset, name, {"seed": 5}, "test")[0]["run"])


@pytest.mark.parametrize("model", ["sgd", "mlp", "bayes"])
def test_a_killed_fit_continues_and_predicts_the_same(
    model: str,
    dataset: Dataset,
    warehouse: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = sealed(dataset)
    whole, killed = begun(dataset, "whole"), begun(dataset, "killed")
    fitting.fit(dataset, whole, model)
    batches = len(manifest.of("train"))
    steps = len(partial_fit.steps(dataset.estimators()[model]))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SAVE_EVERY_S", 0.0)
        reached = Checkpoint.reached

        def slowly(self: Checkpoint, estimator: Any, progress: Progress) -> None:
            reached(self, estimator, progress)
            if progress == Progress(steps - 1, 1, batches // 2):
                time.sleep(60)

        patch.setattr(Checkpoint, "reached", slowly)
        task = os.fork()
        if not task:
            # Collecting a Kafka client, whose threads are not in this process, would crash it.
            gc.disable()
            fitting.fit(dataset, killed, model)
            os._exit(0)
        wait_for(warehouse, killed, (steps - 1, 1, batches // 2))
        os.kill(task, signal.SIGKILL)
        os.waitpid(task, 0)

    learned: list[int] = []
    learn = PartialFit._learn

    def counted(self: PartialFit, number: int, rows: Any) -> None:
        learned.append(number)
        learn(self, number, rows)

    monkeypatch.setattr(PartialFit, "_learn", counted)
    monkeypatch.setattr(limits, "within", lambda memory, seconds, about, work: work())
    with caplog.at_level(logging.INFO):
        fitting.fit(dataset, killed, model)
    assert f"Continuing at batch {batches // 2} of pass 2 of step {steps}" in caplog.text
    assert learned == [steps - 1] * (batches - batches // 2), "no batch was learned twice"
    one, other = result(warehouse, whole, model), result(warehouse, killed, model)
    assert one["outcomes"] == other["outcomes"] and one["metrics"] == other["metrics"]
    features = reading.read(manifest).test.select(manifest.features).to_pandas()
    assert (one["model"].predict_proba(features) == other["model"].predict_proba(features)).all()


def wait_for(warehouse: Connection, number: int, progress: tuple[int, int, int]) -> None:
    """Waits for a checkpoint."""

    def found() -> tuple[int, int, int] | None:
        with warehouse.cursor() as cursor:
            cursor.execute("SELECT step, epoch, batch FROM millrace.checkpoint WHERE run = %s", (number,))
            checkpoint = cursor.fetchone()
        warehouse.rollback()
        return checkpoint

    until(f"a checkpoint at {progress}", lambda: found() == progress, every_s=0.02, why=lambda: f", only at {found()}")


def test_metrics_are_those_of_all_test_rows_together(dataset: Dataset, warehouse: Connection) -> None:
    from sklearn import metrics

    manifest, number = sealed(replace(dataset, passes=1)), begun(dataset, "run")
    fitting.fit(dataset, number, "sgd")
    fitting.fit(dataset, number, "baseline")
    found, rows = result(warehouse, number, "sgd"), reading.read(manifest)
    features, target = rows.test.select(manifest.features).to_pandas(), rows.test["target"].to_numpy()
    chances = found["model"].predict_proba(features)
    assert found["metrics"]["accuracy"] == np.mean(found["model"].predict(features) == target) > 0.7
    assert found["metrics"]["log_loss"] == pytest.approx(metrics.log_loss(target, chances))
    assert found["metrics"]["roc_auc"] == pytest.approx(metrics.roc_auc_score(target, chances[:, 1]))
    assert found["passes"] == 2
    base = result(warehouse, number, "baseline")["model"]
    assert base.class_prior_ == pytest.approx(np.bincount(rows.train["target"].to_numpy()) / rows.train.num_rows)


def test_one_pass_over_batches_is_one_pass_over_rows(dataset: Dataset, warehouse: Connection) -> None:
    manifest, number = sealed(dataset), begun(dataset, "run")
    fitting.fit(replace(dataset, passes=1), number, "bayes")
    rows = reading.read(manifest)
    plain = models()["bayes"].fit(rows.train.select(manifest.features).to_pandas(), rows.train["target"].to_numpy())
    fitted = result(warehouse, number, "bayes")["model"]
    assert fitted[-1].theta_ == pytest.approx(plain[-1].theta_)
    assert fitted[-1].var_ == pytest.approx(plain[-1].var_, rel=1e-6)


def test_a_regression_learns_in_batches(dataset: Dataset, warehouse: Connection) -> None:
    regression = replace(dataset, kind="regression", target="x00", models=regressors)
    manifest, number = sealed(regression), begun(regression, "run")
    fitting.fit(regression, number, "sgd")
    fitting.fit(regression, number, "baseline")
    mean = float(np.mean(reading.read(manifest).train["x00"].to_numpy()))
    assert result(warehouse, number, "baseline")["model"].constant_[0, 0] == pytest.approx(mean)
    assert result(warehouse, number, "sgd")["metrics"]["r2"] > 0.1


def test_a_checkpoint_of_another_plan_is_ignored(dataset: Dataset, warehouse: Connection) -> None:
    sealed(dataset)
    number = begun(dataset, "run")
    estimator = prepared(models()["sgd"], 1)
    first, second = (Checkpoint(number, "sgd", plan, lambda: warehouse) for plan in ("one", "another"))
    first.save(estimator, Progress(1, 0, 7))
    found = first.load()
    assert found is not None and found[1] == Progress(1, 0, 7)
    assert second.load() is None
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE millrace.checkpoint SET sha256 = %s", (hashlib.sha256(b"").hexdigest(),))
    warehouse.commit()
    assert first.load() is None, "changed bytes are not loaded"


@pytest.mark.parametrize(
    ("changes", "model", "expected"),
    [
        ({"out_of_core": "never"}, "sgd", False),
        ({"out_of_core": "always"}, "baseline", True),
        ({"out_of_core": "auto", "memory_limit": "1 GB"}, "sgd", False),
        ({"out_of_core": "auto", "memory_limit": "20 MB"}, "sgd", True),
        ({"out_of_core": "auto", "memory_limit": "20 MB"}, "tree", False),
        ({"out_of_core": "always"}, "tree", ["out_of_core='always'", "DecisionTreeClassifier"]),
        ({"out_of_core": "auto", "memory_limit": "5 MB"}, "tree", ["10 MB", "5 MB", "DecisionTreeClassifier"]),
    ],
)
def test_which_models_learn_in_batches(
    changes: dict[str, Any], model: str, expected: bool | list[str], dataset: Dataset
) -> None:
    changed = replace(dataset, **changes)
    estimator = changed.estimators()[model]
    manifest = sealed(dataset)
    if isinstance(expected, list):
        with raises(Code.PARTIAL_FIT_MISSING, *expected, kind=NonRetryableError):
            out_of_core.chosen(changed, manifest, estimator)
    else:
        assert out_of_core.chosen(changed, manifest, estimator) is expected


def test_a_fit_over_its_limit_is_an_error_in_the_run_log(
    dataset: Dataset, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(dataset)
    number = begun(dataset, "run")
    monkeypatch.setattr(PartialFit, "_learn", lambda *_: time.sleep(60))
    with raises(Code.TIME_LIMIT_EXCEEDED, "'sgd'", dataset.name, "time_limit of 1 s", kind=NonRetryableError):
        fitting.fit(replace(dataset, time_limit="1s"), number, "sgd")
    with raises(Code.MEMORY_LIMIT_EXCEEDED, "'sgd'", "memory_limit of 10 MB", kind=NonRetryableError):
        fitting.fit(replace(dataset, memory_limit="10 MB"), number, "sgd")
    with warehouse.cursor() as cursor:
        cursor.execute(
            "SELECT message FROM millrace.run_log WHERE run = %s AND level = 'ERROR' ORDER BY line", (number,)
        )
        messages = [message for (message,) in cursor.fetchall()]
    warehouse.rollback()
    assert ["time_limit" in message for message in messages] == [True, False]


def test_batches_come_in_order_from_any_of_them_on(dataset: Dataset) -> None:
    manifest = sealed(dataset)
    rows = reading.read(manifest)
    for first in (0, 3):
        ids = [n for batch in reading.in_order(manifest, "train", first) for n in batch.column("id").to_pylist()]
        assert ids == rows.train["id"].to_pylist()[sum(m.rows for m in manifest.of("train")[:first]) :]
