"""Which versions expire on a real broker, which stay, and which settings would delete versions too early."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cli import doctor
from embedded.platform import Platform
from include.datasets import Dataset, definitions
from include.definitions import Found
from include.error_codes import Code
from include.kafka import client, topics
from include.promotion import evaluation_queue
from include.registry import champion_history
from include.registry.champion_history import Cause
from include.training import run
from include.training.verification import verify_run, verify_version
from include.versions import catalog, publication, retention
from include.versions.catalog import VersionExpired
from include.versions.manifest import Interval
from include.versions.reading import read
from tests.errors import raises
from tests.integration.registry import Given, ask, change, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.fixture
def kept(warehouse: Connection, topic: Callable[..., str]) -> Dataset:
    """A dataset that keeps two versions; its models are no better than chance, so none becomes the champion."""
    return given(topic, signal(200, strength=0.0), keep="2 versions")


def sealed(dataset: Dataset, number: int) -> str:
    """Another version of other records."""
    assert isinstance(dataset.source, Given)
    strength = 0.0 if number < 10 else 1.0
    dataset.source.table = signal(200, strength=strength, seed=number, first=1000 * number)
    return seal(dataset)


def finished(connection: Connection, dataset: Dataset, numbers: Iterable[int]) -> list[str]:
    """Publishes versions, trains on them and evaluates their runs; returns their ids."""
    versions = [sealed(dataset, number) for number in numbers]
    for version in versions:
        train(dataset, version)
    evaluation_queue.evaluate_pending_runs(dataset)
    return versions


def readable(dataset: Dataset, versions: list[str]) -> list[bool]:
    """For each version, whether it can still be read from Kafka."""
    found = []
    for version in versions:
        try:
            verdict = verify_version(dataset.name, version, "test").outcome == "identical"
        except VersionExpired:
            verdict = False
        found.append(verdict)
    return found


@pytest.mark.altered("records")
def test_the_oldest_versions_expire_and_no_others(kept: Dataset, warehouse: Connection) -> None:
    versions = finished(warehouse, kept, range(5))
    manifests = [catalog.find(kept.name, version) for version in versions]
    assert retention.expire(warehouse, replace(kept, keep="all")) == []
    assert readable(kept, versions) == [True] * 5
    assert retention.expire(warehouse, kept) == versions[:3]
    assert readable(kept, versions) == [False] * 3 + [True] * 2
    for manifest in manifests[:3]:
        with raises(Code.VERSION_TRIMMED, manifest.short):
            read(manifest)
    assert retention.expire(warehouse, kept) == []
    first = {p: extent.first for p, extent in topics.extents(kept.topic, (0, 1, 2)).items()}
    for message in manifests[3].messages:
        assert first[message.partition] <= message.offset


@pytest.mark.altered("records")
def test_the_error_of_an_expired_version_names_keep(kept: Dataset, warehouse: Connection) -> None:
    versions = finished(warehouse, kept, range(3))
    (number,) = [row.run for row in ask(warehouse, "SELECT run FROM millrace.training_run ORDER BY run LIMIT 1")]
    assert retention.expire(warehouse, kept) == versions[:1]
    for attempt in (
        lambda: run.begin(kept, "again", {"version": versions[0]}, "test"),
        lambda: verify_version(kept.name, versions[0], "ada"),
        lambda: verify_run(number, "ada"),
    ):
        with raises(Code.VERSION_EXPIRED, versions[0][:12], kept.name, "keep"):
            attempt()
    assert catalog.find(kept.name).version == versions[2]
    assert isinstance(kept.source, Given)
    kept.source.table = signal(200, strength=0.0, seed=0, first=0)
    again = publication.publish(kept, Interval())
    assert again.new and again.version not in versions, "the same rows can be published again"


@pytest.mark.altered("records")
def test_a_run_does_not_begin_on_a_version_that_expires_meanwhile(kept: Dataset, warehouse: Connection) -> None:
    version, _, _ = finished(warehouse, kept, range(3))
    begin = catalog.find

    def overtaken(*arguments: object) -> object:
        found = begin(*arguments)  # type: ignore[arg-type]
        assert retention.expire(warehouse, kept) == [version]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "find", overtaken)
        with pytest.raises(VersionExpired):
            run.begin(kept, "late", {"version": version}, "test")
    assert ask(warehouse, "SELECT * FROM millrace.training_run WHERE run_id = 'late'") == []


def stays(connection: Connection, dataset: Dataset, caplog: pytest.LogCaptureFixture) -> str:
    """Asserts that no version expires; returns why the oldest stays."""
    caplog.clear()
    with caplog.at_level("INFO", "include.versions.retention"):
        assert retention.expire(connection, dataset) == []
    (line,) = caplog.messages
    return line.partition(": ")[2]


@pytest.mark.altered("records")
def test_versions_of_the_champion_a_rollback_a_run_or_a_verification_stay(
    kept: Dataset, warehouse: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    first = sealed(kept, 10)
    train(kept, first)
    evaluation_queue.evaluate_pending_runs(kept)
    (champion,) = ask(warehouse, "SELECT version, artifact FROM millrace.champion")
    assert first.startswith(champion.version)
    later = finished(warehouse, kept, range(1, 4))
    assert stays(warehouse, kept, caplog) == "the champion trained on it."
    with warehouse.cursor() as cursor:
        cursor.execute(
            "INSERT INTO millrace.artifact (dataset, run, model, sha256, content, probe, trained_on)"
            " SELECT dataset, (SELECT run FROM millrace.training_run WHERE version = %s), model, repeat('0', 64),"
            " content, probe, trained_on FROM millrace.artifact RETURNING artifact",
            (later[-1],),
        )
        ((other,),) = cursor.fetchall()
    champion_history.record_change(
        warehouse,
        kept.name,
        after=1,
        artifact=other,
        rollback_to=1,
        cause=Cause.APPROVAL,
        decider="ada",
        reason="a test",
    )
    warehouse.commit()
    assert stays(warehouse, kept, caplog) == "the champion of a rollback trained on it."
    change(warehouse, "DELETE FROM millrace.champion_change")
    change(
        warehouse,
        "INSERT INTO millrace.verification (dataset, version, asked_by) VALUES (%s, %s, '')",
        kept.name,
        first,
    )
    assert stays(warehouse, kept, caplog) == "it is being verified."
    change(warehouse, "UPDATE millrace.verification SET outcome = 'identical', finished_at = now()")
    change(
        warehouse, "UPDATE millrace.training_run SET state = 'running', finished_at = NULL WHERE version = %s", first
    )
    assert stays(warehouse, kept, caplog) == "a run on it has not ended."
    change(warehouse, "UPDATE millrace.training_run SET state = 'success'")
    assert retention.expire(warehouse, kept) == [first, later[0]]


def test_a_version_without_a_run_stays(kept: Dataset, warehouse: Connection, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        sealed(kept, number)
    assert stays(warehouse, kept, caplog) == "its training has not begun."


@pytest.mark.altered("records")
def test_versions_of_other_datasets_or_not_landed_yet_stay(kept: Dataset, warehouse: Connection) -> None:
    versions = finished(warehouse, kept, range(3))
    change(warehouse, "UPDATE millrace.dataset_version SET dataset = 'somebody''s' WHERE version = %s", versions[0])
    assert retention.expire(warehouse, kept) == [], "it is the oldest on the topic, and another's"
    change(warehouse, "UPDATE millrace.dataset_version SET dataset = %s WHERE version = %s", kept.name, versions[0])
    assert isinstance(kept.source, Given)
    kept.source.table = signal(200, strength=0.0, seed=9, first=9000)
    published = publication.publish(kept, Interval()).version
    assert retention.expire(warehouse, kept) == versions[:1]
    seal(kept)
    assert readable(kept, [*versions, published]) == [False, True, True, True]


def set_on(topic: str, **values: str) -> None:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    brokers = client.admin()
    brokers.incremental_alter_configs([resource])[resource].result(30)


def test_a_setting_that_deletes_too_early_is_reported_with_a_remedy(kept: Dataset, warehouse: Connection) -> None:
    version = sealed(kept, 1)
    assert list(retention.threats(warehouse, kept)) == []
    set_on(kept.topic, retention_ms=str(7 * 86_400_000))
    (threat,) = retention.threats(warehouse, kept)
    assert threat.what.startswith(
        f"The topic {kept.topic!r} has retention.ms=604800000. Version {version[:12]}, which is needed (it is among "
        "the newest 2), will be deleted after 20"
    )
    assert threat.remedy.startswith("Set retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete on the topic")
    with raises(Code.RETENTION_TOO_SHORT, "retention.ms=604800000", "retention.ms=-1"):
        retention.maintain(kept)
    set_on(kept.topic, retention_ms=str(365 * 86_400_000))
    assert list(retention.threats(warehouse, kept)) == [], "by then it will not be needed"
    (threat,) = retention.threats(warehouse, replace(kept, keep="all"))
    assert "needed (all are kept)" in threat.what
    set_on(kept.topic, retention_ms="-1", retention_bytes="1000000", cleanup_policy="compact,delete")
    assert [threat.what.split(" has ")[1].split(". ")[0] for threat in retention.threats(warehouse, kept)] == [
        "cleanup.policy=compact,delete",
        "retention.bytes=1000000",
    ]


def test_the_doctor_reports_such_a_setting(
    kept: Dataset, warehouse: Connection, services: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = sealed(kept, 1)
    monkeypatch.setattr(definitions, "find", lambda: Found({kept.name: kept}, {}))
    # The test has a warehouse of its own.
    monkeypatch.setattr(Platform, "environment", lambda _: {})
    assert list(doctor._datasets(services)) == []
    set_on(kept.topic, retention_ms="60000")
    (finding,) = doctor._datasets(services)
    assert f"has retention.ms=60000. Version {version[:12]}" in finding.what
    assert "retention.ms=-1" in finding.remedy


def test_a_deleted_topic_is_reported(kept: Dataset, warehouse: Connection) -> None:
    version = sealed(kept, 1)
    brokers = client.admin()
    brokers.delete_topics([kept.topic])[kept.topic].result(30)
    (threat,) = retention.threats(warehouse, kept)
    assert threat.what == f"The topic {kept.topic!r} was deleted, and version {version[:12]} with it."
