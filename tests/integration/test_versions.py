"""Sealed versions on a real broker: published in one transaction, found again, read exactly, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from msgspec import structs
from pyarrow import csv

from include.datasets import Dataset, File, GroupSplit, HashSplit, Query, TimeSplit, definitions
from include.datasets.splits import Split
from include.error_codes import Code
from include.kafka import client, publisher, topics
from include.training import dispatch
from include.versions import catalog, packing, publication, reading
from include.versions.manifest import PUBLICATION_HEADER, Column, Interval, Manifest, Message, Role, version_id
from include.versions.publication import NothingToPublish, publish
from include.versions.reading import VersionRefused, read
from tests.errors import raises

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.fixture
def weather(warehouse: Connection, topic: Callable[..., str]) -> Dataset:
    """Seattle's weather under another name."""
    return replace(definitions.get("seattle_weather"), name=topic("weather").replace("-", "_"))


def year(number: int) -> Interval:
    return Interval(datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC))


def sealed(dataset: Dataset, interval: Interval) -> Manifest:
    publish(dataset, interval)
    dispatch.land("test")
    return catalog.find(dataset.name)


def test_a_version_is_read_back_exactly(weather: Dataset) -> None:
    manifest = sealed(weather, year(2014))
    rows = read(manifest)
    source = weather.source.rows(None, None).replace_schema_metadata(None)
    published = source.select(rows.train.column_names).slice(0, 366 + 365 + 365)
    assert pa.concat_tables([rows.train, rows.test]).equals(published)
    assert manifest.rows == {"train": 366 + 365, "test": 365}
    assert manifest.classes == ["drizzle", "fog", "rain", "snow", "sun"]
    assert manifest.interval == year(2014)
    assert rows.foreign == 0


def test_many_batches_come_back_in_order(warehouse: Connection, topic: Callable[..., str], tmp_path: Path) -> None:
    numbers = pa.table(
        {"id": range(200_000), "x": [n / 7 for n in range(200_000)], "y": [n % 3 for n in range(200_000)]}
    )
    csv.write_csv(numbers, tmp_path / "numbers.csv")
    dataset = replace(
        definitions.get("digits"),
        name=topic("numbers").replace("-", "_"),
        source=File(str(tmp_path / "numbers.csv")),
        record_id="id",
        target="y",
    )
    manifest = sealed(dataset, Interval())
    rows = read(manifest)
    assert len(manifest.messages) > 4
    assert {message.partition for message in manifest.messages} == {0, 1, 2}
    assert rows.train["id"].to_pylist() == sorted(rows.train["id"].to_pylist())
    assert sorted(rows.train["id"].to_pylist() + rows.test["id"].to_pylist()) == list(range(200_000))


def test_the_same_rows_are_published_once(weather: Dataset) -> None:
    first = publish(weather, year(2013))
    assert first.new
    again = publish(weather, year(2013))
    assert again == replace(first, new=False), "known from the control topic, before any dispatch"
    dispatch.land("test")
    assert publish(weather, year(2013)) == again, "known from the warehouse"
    assert publish(replace(weather, split=TimeSplit("100 days")), year(2013)).new, "another split is another version"


def test_a_sample_is_the_same_for_the_same_seed(weather: Dataset) -> None:
    first = publish(weather, year(2013), max_rows=500, seed=1)
    assert publish(weather, year(2013), max_rows=500, seed=1) == replace(first, new=False)
    assert publish(weather, year(2013), max_rows=500, seed=2).new


@pytest.mark.parametrize(
    ("number", "value"),
    [(2016, "no rows from 2016-01-01"), (2030, "from 2012-01-01"), (2012, "all of one class")],
)
def test_an_interval_without_usable_rows_publishes_nothing(weather: Dataset, number: int, value: str) -> None:
    with raises(Code.NOTHING_TO_PUBLISH, value, kind=NothingToPublish):
        publish(weather, year(number))
    dispatch.land("test")
    with raises(Code.UNKNOWN_VERSION, weather.name):
        catalog.find(weather.name)


@pytest.mark.parametrize(
    ("changes", "code", "value"),
    [
        ({"target": "wether"}, Code.COLUMN_MISSING, "field target: its source has no column wether; it has date, "),
        ({"features": ["wind", "hail"]}, Code.COLUMN_MISSING, "field features: its source has no column hail"),
        ({"record_id": "wind"}, Code.RECORD_ID_NOT_UNIQUE, "field record_id: the column 'wind'"),
        ({"kind": "regression"}, Code.TARGET_UNUSABLE, "field target: the column 'weather' is "),
        ({"source": File("data/nowhere.csv")}, Code.FILE_NOT_FOUND, "nowhere.csv"),
        ({"source": Query("SELECT * FROM nowhere")}, Code.QUERY_FAILED, 'relation "nowhere" does not exist'),
        ({"source": Query("SELECT 1 AS date WHERE false")}, Code.COLUMN_MISSING, "its source has no column"),
    ],
)
def test_a_source_that_does_not_fit_the_definition_publishes_nothing(
    weather: Dataset, changes: dict[str, object], code: Code, value: str
) -> None:
    with raises(code, value):
        publish(replace(weather, **changes), year(2013))  # type: ignore[arg-type]
    dispatch.land("test")
    with raises(Code.UNKNOWN_VERSION, weather.name):
        catalog.find(weather.name)


@pytest.mark.parametrize(
    ("split", "use", "closest"),
    [
        (GroupSplit("wind", test=0.0001), "test on", "GroupSplit(by='wind'"),
        (TimeSplit("3650 days"), "train on", "TimeSplit(test='104 weeks')"),
        (HashSplit(1e-9), "test on", "HashSplit(test=0.0014, salt='"),
    ],
)
def test_the_error_of_a_split_without_rows_proposes_the_closest_split(
    weather: Dataset, split: Split, use: str, closest: str
) -> None:
    with raises(Code.NOTHING_TO_PUBLISH, f"none of them to {use}", str(split), closest):
        publish(replace(weather, split=split), year(2013))


def test_a_query_on_the_warehouse_is_a_source(warehouse: Connection, weather: Dataset) -> None:
    rows = """SELECT day::timestamptz AS date, extract(doy FROM day)::float AS wind,
                     extract(dow FROM day)::int % 2 AS weather
              FROM generate_series(timestamp '2012-01-01', '2015-12-31', '1 day') AS day WHERE day < %(end)s"""
    manifest = sealed(replace(weather, source=Query(rows)), year(2013))
    assert manifest.rows == {"train": 366, "test": 365}


def test_a_publish_that_dies_leaves_nothing(weather: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publication, "encode", dies)
        with pytest.raises(KeyboardInterrupt):
            publish(weather, year(2013))
    manifest = sealed(weather, year(2013))
    assert read(manifest).train.num_rows == 366, "the aborted messages before are no part of it"


def test_a_killed_publishers_open_transaction_is_ended_by_the_next(weather: Dataset) -> None:
    killed = client.producer(transactional_id=f"millrace-publish-{weather.name}")
    publish(weather, year(2013))
    killed.init_transactions(30)
    killed.begin_transaction()
    killed.produce(weather.topic, b"half", partition=0)
    killed.flush(30)
    manifest = sealed(weather, year(2014))
    assert read(manifest).test.num_rows == 365


@pytest.fixture
def own_topic(services: object, topic: Callable[..., str]) -> str:
    name = topic("sealed")
    topics.create(name, partitions=2, config=publication.TOPIC_CONFIG)
    return name


def seal(topic: str, between: Callable[[], None] = lambda: None) -> Manifest:
    """A version of two train and one test message on partition 0; ``between`` is called before the last."""
    rows = pa.table({"id": range(30), "x": [n / 7 for n in range(30)], "y": [n % 2 for n in range(30)]})
    values = [packing.stream(rows.slice(start, 10).to_batches()[0]) for start in (0, 10, 20)]
    with publisher.transaction(f"sealing {topic}") as opened:
        for number, value in enumerate(values):
            if number == len(values) - 1:
                opened.delivered()
                between()
            opened.send(topic, value, headers=[(PUBLICATION_HEADER, b"this")])
        places = opened.delivered()
    splits: list[tuple[Role, int]] = [("train", 0), ("train", 1), ("test", 0)]
    messages = [
        Message(partition, offset, split, batch, 10, hashlib.sha256(value).hexdigest())
        for (partition, offset), (split, batch), value in zip(places, splits, values, strict=True)
    ]
    return Manifest(
        dataset="sealed",
        version=version_id(topic, messages),
        publication="this",
        topic=topic,
        kind="classification",
        record_id="id",
        target="y",
        features=["x"],
        columns=[Column("id", "int64"), Column("x", "double"), Column("y", "int64")],
        split={"kind": "hash"},
        classes=[0, 1],
        rows={"train": 20, "test": 10},
        messages=messages,
    )


def send(topic: str, publication_: bytes | None = None) -> None:
    """Sends one message of another program."""
    producer = client.producer()
    headers: dict[str, str | bytes | None] = {PUBLICATION_HEADER: publication_} if publication_ else {}
    producer.produce(topic, b"another's", partition=0, headers=headers)
    assert producer.flush(30) == 0


def altered(manifest: Manifest, **changes: Any) -> Manifest:
    first, *others = manifest.messages
    return structs.replace(manifest, messages=[structs.replace(first, **changes), *others])


def test_messages_of_others_are_skipped_and_counted(own_topic: str) -> None:
    def interfere() -> None:
        send(own_topic)
        send(own_topic, b"that")

    manifest = seal(own_topic, between=interfere)
    rows = read(manifest)
    assert (rows.train.num_rows, rows.test.num_rows, rows.foreign) == (20, 10, 2)
    assert rows.train["id"].to_pylist() == list(range(20))


def test_a_message_that_claims_the_version_is_refused(own_topic: str) -> None:
    manifest = seal(own_topic, between=lambda: send(own_topic, b"this"))
    with raises(Code.VERSION_UNLISTED, own_topic, "partition 0, offset 2,", kind=VersionRefused):
        read(manifest)


def test_a_trimmed_version_is_refused(own_topic: str) -> None:
    manifest = seal(own_topic)
    brokers = client.admin()
    brokers.delete_records([TopicPartition(own_topic, 0, 1)])[TopicPartition(own_topic, 0, 1)].result(30)
    with raises(Code.VERSION_TRIMMED, "refused, trimmed: ", "offsets 0 to 0"):
        read(manifest)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ({"sha256": "0" * 64}, Code.VERSION_ALTERED, ["offset 0, does not have the digest"]),
        ({"sha256": None, "blake3": "0" * 64}, Code.VERSION_ALTERED, ["offset 0, does not have the digest"]),
        ({"rows": 11}, Code.VERSION_ALTERED, ["offset 0, has 10 rows, not 11"]),
        ({"partition": 1}, Code.VERSION_SHORT, ["partition 1", "offset 0"]),
        ({"offset": 3}, Code.VERSION_SHORT, ["1 listed messages are missing", "offset 3"]),
    ],
)
def test_a_message_that_is_not_as_sealed_is_refused(
    own_topic: str, changes: dict[str, Any], code: Code, values: list[str]
) -> None:
    manifest = seal(own_topic)
    send(own_topic)
    with raises(code, *values):
        read(altered(manifest, **changes))


def test_another_schema_is_refused(own_topic: str) -> None:
    manifest = structs.replace(
        seal(own_topic), columns=[Column("id", "int64"), Column("x", "float"), Column("y", "int64")]
    )
    with raises(Code.VERSION_ALTERED, own_topic, "another schema"):
        read(manifest)


def test_a_version_after_an_open_transaction_is_refused_in_time(
    own_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "STABLE_WITHIN_S", 3.0)
    manifest = seal(own_topic)
    opened = client.producer(transactional_id=f"open {own_topic}")
    opened.init_transactions(30)
    opened.begin_transaction()
    opened.produce(own_topic, b"open", partition=0)
    opened.flush(30)
    with raises(Code.VERSION_OPEN, own_topic):
        read(altered(manifest, offset=4))
    opened.abort_transaction(30)
