"""Verification on a real broker and server: runs are trained again, and differences are found and named."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition

from include import provenance
from include.datasets import Dataset, HashSplit
from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import client
from include.training import run as runs
from include.training.verification import verify_one, verify_run, verify_version
from include.versions import catalog
from tests.errors import raises
from tests.integration.registry import Given, ask, change, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def two_models() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": RandomForestClassifier(5, max_depth=3),
    }


def regressors() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestRegressor

    return {"forest": RandomForestRegressor(5, max_depth=3)}


@pytest.fixture
def noisy(warehouse: Connection, topic: Callable[..., str]) -> Dataset:
    return given(topic, signal(400, strength=0.7), models=two_models, split=HashSplit(test=0.3))


def test_a_run_trained_again_is_identical_and_the_result_is_stored(noisy: Dataset, warehouse: Connection) -> None:
    number = train(noisy, seal(noisy), seed=11)
    found = verify_run(number, "ada")
    assert (found.outcome, list(found.models)) == ("identical", ["logistic", "forest", "baseline"])
    (row,) = ask(warehouse, "SELECT * FROM millrace.verification")
    assert (row.dataset, row.run, row.asked_by, row.outcome) == (noisy.name, number, "ada", "identical")
    assert row.version == found.manifest.version and row.finished_at > row.started_at
    (run_id,) = ask(warehouse, "SELECT run_id FROM millrace.training_run")[0]
    assert verify_run(run_id, "ada").outcome == "identical", "found by its id in Airflow"


def test_a_regression_trained_again_is_identical(warehouse: Connection, topic: Callable[..., str]) -> None:
    rows = signal(300)
    numbers = given(topic, rows.set_column(3, "target", rows["noise"]), kind="regression", models=regressors)
    assert verify_run(train(numbers, seal(numbers)), "ada").outcome == "identical"


def test_the_present_definition_does_not_matter(noisy: Dataset) -> None:
    number = train(noisy, seal(noisy), seed=11)
    assert isinstance(noisy.source, Given)
    noisy.source.table = signal(50)
    assert verify_run(number, "ada").outcome == "identical"


altered = pytest.mark.altered("stored estimators, predictions or records")


def other_forest(connection: Connection, number: int) -> None:
    """Replaces the stored unfitted forest by one with another seed, as a forger of results would."""
    (row,) = ask(connection, "SELECT unfitted FROM millrace.model_result WHERE run = %s AND model = 'forest'", number)
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes(row.unfitted))) as old, zipfile.ZipFile(forged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                assert b'"11"' in content
                content = content.replace(b'"11"', b'"12"')
            new.writestr(name, content)
    change(
        connection,
        "UPDATE millrace.model_result SET unfitted = %s WHERE run = %s AND model = 'forest'",
        *(forged.getvalue(), number),
    )


@altered
def test_a_run_that_differs_names_the_model_and_the_row(noisy: Dataset, warehouse: Connection) -> None:
    number = train(noisy, seal(noisy), seed=11)
    other_forest(warehouse, number)
    found = verify_run(number, "ada")
    assert found.outcome == "different"
    assert {finding.partition(":")[0] for finding in found.findings} == {"forest"}
    assert "first row" in found.findings[0]
    assert any("log_loss was" in finding for finding in found.findings)
    (row,) = ask(warehouse, "SELECT outcome, findings FROM millrace.verification")
    assert (row.outcome, row.findings) == ("different", list(found.findings))
    with raises(Code.RUN_NOT_REPRODUCED, f"Run {number}", noisy.name, "forest: ", kind=NonRetryableError):
        verify_one(number, "schedule")


@altered
def test_predictions_that_differ_only_where_both_are_wrong_are_found(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    dataset = given(topic, signal(400, strength=0.7), models=two_models)
    number = train(dataset, seal(dataset))
    change(warehouse, "UPDATE millrace.model_result SET predictions_sha256 = '' WHERE model = 'logistic'")
    assert verify_run(number, "ada").findings == [
        "logistic: predictions differ for records that were wrong then and are wrong now."
    ]


@altered
def test_other_libraries_are_named_with_both_versions(
    noisy: Dataset, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = train(noisy, seal(noisy), seed=11)
    then = provenance.library_versions()
    now = {**then, "scikit-learn": "9.9", "gone": "1.0"}
    del now["numpy"]
    monkeypatch.setattr(provenance, "library_versions", lambda: now)
    found = verify_run(number, "ada")
    assert found.outcome == "same data, other library versions"
    assert str(found).splitlines() == [
        "same data, other library versions",
        "gone: none then, 1.0 now",
        f"numpy: {then['numpy']} then, none now",
        f"scikit-learn: {then['scikit-learn']} then, 9.9 now",
    ]
    (row,) = ask(warehouse, "SELECT outcome, libraries FROM millrace.verification")
    assert row.libraries["scikit-learn"] == [then["scikit-learn"], "9.9"]
    other_forest(warehouse, number)
    assert verify_run(number, "ada").outcome == "different", "another library does not explain another prediction"


@altered
def test_a_run_whose_messages_are_gone_names_the_reason(noisy: Dataset) -> None:
    number = train(noisy, seal(noisy))
    manifest = catalog.find(noisy.name)
    first = manifest.messages[0]
    spot = TopicPartition(noisy.topic, first.partition, first.offset + 1)
    client_ = client.admin()
    client_.delete_records([spot])[spot].result(30)
    for found in (verify_run(number, "ada"), verify_version(noisy.name, None, "ada")):
        assert found.outcome == "different"
        (finding,) = found.findings
        assert manifest.short in finding and noisy.name in finding and "trimmed" in finding


def test_a_version_read_again_is_identical(noisy: Dataset, warehouse: Connection) -> None:
    version = seal(noisy)
    assert verify_version(noisy.name, version[:8], "ada").outcome == "identical"
    (row,) = ask(warehouse, "SELECT version, run, outcome FROM millrace.verification")
    assert (row.version, row.run, row.outcome) == (version, None, "identical")


def test_a_run_that_cannot_be_verified_is_an_error(noisy: Dataset) -> None:
    with raises(Code.RUN_NOT_FOUND, 99, kind=NonRetryableError):
        verify_run(99, "ada")
    planned = runs.begin(noisy, "run", {"version": seal(noisy)}, "test")
    with raises(Code.RUN_UNSUCCESSFUL, planned[0]["run"], "running", kind=NonRetryableError):
        verify_run(planned[0]["run"], "ada")


def test_the_run_verified_longest_ago_is_sampled(noisy: Dataset, warehouse: Connection) -> None:
    assert verify_one(None, "schedule") is None, "no run has succeeded yet"
    version = seal(noisy)
    numbers = [train(noisy, version, run_id=f"run {n}") for n in range(3)]
    for _ in range(4):
        assert verify_one(None, "schedule") == "identical"
    sampled = [row.run for row in ask(warehouse, "SELECT run FROM millrace.verification ORDER BY verification")]
    assert sorted(sampled[:3]) == numbers, "each once"
    assert sampled[3] == sampled[0]


@altered
def test_the_command_prints_the_result(noisy: Dataset, warehouse: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from cli import verify as command

    version = seal(noisy)
    number = train(noisy, version, seed=11)
    monkeypatch.setattr(command.Platform, "environment", lambda _: {})
    shown = CliRunner().invoke(command.verify, ["run", str(number)])
    assert shown.exit_code == 0
    assert shown.stdout == (
        f"Version {version[:12]} of {noisy.name}: logistic, forest, baseline fitted again\nidentical\n"
    )
    shown = CliRunner().invoke(command.verify, ["version", noisy.name])
    assert shown.exit_code == 0 and shown.stdout.splitlines()[1] == "identical"
    other_forest(warehouse, number)
    shown = CliRunner().invoke(command.verify, ["run", str(number)])
    assert shown.exit_code == 1 and shown.stdout.splitlines()[1] == "different"
