"""Manifests that lie: whatever a foreign program writes is refused with one sentence, and holds up no other version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from include.datasets.hashing import RULE
from include.errors import UserError
from include.kafka import publisher, topics
from include.training import dispatch, fitting, run
from include.versions import catalog, reading
from include.versions.manifest import CONTROL_TOPIC, Manifest, version_id
from include.versions.publication import TOPIC_CONFIG
from include.versions.reading import VersionRefused
from tests.integration import foreign
from tests.integration.registry import ask, given, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SOMEHOW = {"kind": "by hand"}


@pytest.fixture
def name(topic: Callable[..., str], warehouse: Connection) -> str:
    return topic("lie").replace("-", "_")


def with_target(rows: pa.Table, values: pa.Array) -> dict[str, pa.Table]:
    rows = rows.set_column(rows.schema.get_field_index("target"), "target", values)
    return {"train": rows.slice(0, 80), "test": rows.slice(80)}


NUMBERS = pa.array([n % 2 for n in range(100)])
DOUBLES = pa.array([float(n % 2) for n in range(100)])
WORDS = pa.array(["no", "yes"] * 50)


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        (WORDS, {"classes": ["no"]}, "the target 'yes' is not among the manifest's classes, 'no'."),
        (WORDS, {"classes": ["Yes", "no"]}, "the target 'yes' is not among"),
        (WORDS, {"classes": ["yes", "no"]}, "'yes', 'no', are no ascending values of string"),
        (WORDS, {"classes": ["no", "no", "yes"]}, "are no ascending values of string"),
        (WORDS, {"classes": []}, "classes, none, are no ascending values of string"),
        (WORDS, {"classes": [0, 1]}, "classes, 0, 1, are no ascending values of string"),
        (WORDS, {"classes": ["no", 1]}, "are no ascending values of string"),
        (NUMBERS, {"classes": ["0", "1"]}, "are no ascending values of int64"),
        (NUMBERS, {"classes": [0.0, 1.0]}, "classes, 0.0, 1.0, are no ascending values of int64"),
        (NUMBERS, {"classes": [False, True]}, "are no ascending values of int64"),
        (NUMBERS.cast(pa.int8()), {"classes": [0, 1, 300]}, "are no ascending values of int8"),
        (NUMBERS.cast(pa.bool_()), {"classes": [0, 1]}, "are no ascending values of bool"),
        (
            NUMBERS.cast(pa.int32()).cast(pa.date32()),
            {"classes": ["1970-01-01", "1970-01-02"]},
            "no ascending values of date32",
        ),
        (DOUBLES, {"classes": [0.0, 2.0]}, "the target 1.0 is not among"),
        (WORDS, {"kind": "regression", "classes": []}, "says regression, and the target target is string"),
        (
            NUMBERS.cast(pa.bool_()),
            {"kind": "regression", "classes": []},
            "says regression, and the target target is bool",
        ),
        (pa.array([None, *[1.5] * 99]), {"kind": "regression", "classes": []}, "1 or more records have no target"),
        (pa.array([1.5] * 99 + [np.nan]), {"kind": "regression", "classes": []}, "1 or more records have no target"),
        (pa.array([np.inf, *[1.5] * 99]), {"kind": "regression", "classes": []}, "or one that is not finite"),
        (pa.array([None, *["yes"] * 99]), {"classes": ["no", "yes"]}, "1 or more records have no target"),
        (pa.nulls(100), {"classes": ["no", "yes"]}, "are no ascending values of null"),
    ],
)
@pytest.mark.altered
def test_kind_and_classes_that_contradict_the_rows_are_refused_as_altered(
    name: str, target: pa.Array, changes: dict[str, Any], says: str
) -> None:
    manifest = foreign.seal(name, with_target(signal(100), target), SOMEHOW, **changes)
    for look in (reading.read, reading.prove):
        with pytest.raises(VersionRefused, match="is refused, altered: ") as refused:
            look(manifest)
        assert says in str(refused.value)


def test_no_model_sees_the_rows_of_a_lie(name: str, warehouse: Connection) -> None:
    foreign.seal(name, with_target(signal(100), WORDS), SOMEHOW, classes=["no"])
    for out_of_core in ("never", "always"):
        dataset = replace(given(lambda _: name, signal(1), models=naive), name=name, out_of_core=out_of_core)
        planned = run.begin(dataset, out_of_core, {}, "test")
        with pytest.raises(UserError, match="is refused, altered: the target 'yes' is not among"):
            fitting.fit(dataset, planned[0]["run"], "naive")
    assert ask(warehouse, "SELECT * FROM millrace.model_result") == []


def naive() -> dict[str, Any]:
    from sklearn.naive_bayes import GaussianNB

    return {"naive": GaussianNB()}


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (WORDS, ["maybe", "no", "yes"]),
        (NUMBERS, [0, 1, 2]),
        (DOUBLES, [0, 1]),
        (WORDS.dictionary_encode(), ["no", "yes"]),
    ],
)
def test_a_class_more_than_the_rows_have_is_no_lie(name: str, target: pa.Array, classes: list[Any]) -> None:
    manifest = foreign.seal(name, with_target(signal(100), target), SOMEHOW, classes=classes)
    train(replace(given(lambda _: name, signal(1)), name=name), manifest.version)


def other(manifest: Manifest, **fields: Any) -> dict[str, Any]:
    """The manifest as JSON has it, with other fields, and the version's id that follows from them."""
    built = msgspec.to_builtins(manifest) | fields
    if "messages" in fields or "topic" in fields:
        messages = [msgspec.convert(m, type(manifest.messages[0]), strict=False) for m in built["messages"][:0]]
        built["version"] = fields.get("version") or version_id(built["topic"], messages or manifest.messages)
    return built


HASHED = {"kind": "hash", "column": "id", "salt": "", "test": 0.5, "hash": RULE}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "millrace.manifest/9"}, "no manifest"),
        ({"dataset": None}, "no manifest"),
        ({"dataset": "a\0b"}, "cannot be kept"),
        ({"version": "0" * 64}, "version is not the SHA-256"),
        ({"topic": 7}, "no manifest"),
        ({"publication": ""}, "no manifest"),
        ({"kind": "ranking"}, "no manifest"),
        ({"record_id": "nowhere"}, "lacks nowhere"),
        ({"record_id": "target"}, "target 'target' is its record_id, too"),
        ({"event_time": "nowhere"}, "lacks nowhere"),
        ({"event_time": ["x"]}, "no manifest"),
        ({"target": "x"}, "names its target 'x' among the features"),
        ({"features": []}, "no manifest"),
        ({"features": ["x", "x"]}, "list of features names a column twice"),
        ({"features": ["x", "nowhere"]}, "lacks nowhere"),
        (
            {"columns": [{"name": n, "type": "double"} for n in ("id", "id", "x", "noise", "target")]},
            "schema names a column twice",
        ),
        ({"columns": [{"name": "id"}]}, "no manifest"),
        ({"split": []}, "no manifest"),
        (
            {"split": {"kind": "time", "column": "nowhere"}},
            "split is one by time, and the schema lacks its column, 'nowhere'",
        ),
        ({"split": {"kind": "group", "column": ["id"]}}, "split is one by group"),
        ({"split": HASHED | {"test": -0.5}}, "the share -0.5"),
        ({"split": HASHED | {"test": 1e300}}, "the share 1e"),
        ({"split": HASHED | {"salt": None}}, "the salt None"),
        ({"split": {"kind": "by\0hand"}}, "cannot be kept"),
        ({"classes": [None, "yes"]}, "no manifest"),
        ({"classes": [["no"]]}, "no manifest"),
        ({"rows": {"train": 80}}, "says 0 test rows"),
        ({"rows": {"train": 10**30, "test": 20}}, "no manifest"),
        ({"rows": {"train": -80, "test": 20}}, "no manifest"),
        ({"messages": []}, "no manifest"),
        ({"interval": {"start": "0001-01-01T00:00:00+05:30"}}, "which is no time in UTC"),
        ({"interval": {"start": "yesterday"}}, "no manifest"),
        ({"asked_by": "a\0b"}, "cannot be kept"),
        ({"parameters": [1]}, "no manifest"),
        ({"code": 5}, "no manifest"),
    ],
)
@pytest.mark.altered
def test_a_manifest_with_a_field_that_cannot_be_is_kept_aside_and_holds_up_no_other(
    name: str, warehouse: Connection, fields: dict[str, Any], says: str
) -> None:
    truth = foreign.seal(f"{name}_true", with_target(signal(100), WORDS), SOMEHOW)
    before = offset(warehouse)
    send(msgspec.json.encode(msgspec.to_builtins(truth) | {"dataset": name} | fields))
    assert dispatch.land("test") == 1
    (found,) = ask(warehouse, "SELECT reason FROM millrace.refused_manifest WHERE manifest_offset > %s", before)
    assert says in found.reason
    after = foreign.seal(f"{name}_after", with_target(signal(100), WORDS), SOMEHOW)
    assert catalog.find(f"{name}_after").version == after.version


def offset(connection: Connection) -> int:
    ((last,),) = ask(connection, "SELECT max(manifest_offset) FROM millrace.dataset_version")
    return int(last)


def send(value: bytes, **options: Any) -> None:
    topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG)
    with publisher.transaction("foreign liar") as opened:
        opened.send(CONTROL_TOPIC, value, **options)


@pytest.mark.altered
def test_rows_and_places_that_are_not_there_are_refused(name: str, warehouse: Connection) -> None:
    truth = foreign.seal(name, with_target(signal(100), WORDS), SOMEHOW)

    def lie(**fields: Any) -> Manifest:
        messages = [msgspec.structs.replace(m, **fields) if m.split == "train" else m for m in truth.messages]
        rows = {"train": sum(m.rows for m in messages if m.split == "train"), "test": 20}
        return msgspec.structs.replace(truth, messages=messages, rows=rows, version=version_id(truth.topic, messages))

    for manifest, reason in (
        (lie(rows=81), "altered: the message"),
        (lie(rows=10**7), "altered: the message"),
        (lie(partition=9), "short: the topic .* has no partition 9"),
        (lie(offset=10**15), "short: "),
        (lie(sha256="0" * 64), "altered: the message"),
        (msgspec.structs.replace(truth, topic="nowhere", version=version_id("nowhere", truth.messages)), "trimmed: "),
        (msgspec.structs.replace(truth, columns=truth.columns[::-1]), "altered: .* another schema"),
        (msgspec.structs.replace(truth, record_id="noise", features=["x"]), "nothing"),
    ):
        if reason == "nothing":
            assert reading.read(manifest).train.num_rows == 80
            continue
        with pytest.raises(VersionRefused, match=f"is refused, {reason}"):
            reading.read(manifest)


@pytest.mark.altered
def test_rows_without_the_value_that_decides_their_side_are_refused(name: str) -> None:
    rows = signal(100).append_column("group", pa.array([None, *["a"] * 99]))
    parts = {"train": rows.slice(0, 80), "test": rows.slice(80)}
    for kind in ("group", "time"):
        manifest = foreign.seal(f"{name}_{kind}", parts, {"kind": kind, "column": "group"})
        with pytest.raises(
            VersionRefused, match="leaking: 1 or more train records have no group, which decides their side"
        ):
            reading.read(manifest)
    lists = signal(100).append_column("group", pa.array([[1]] * 100))
    manifest = foreign.seal(
        f"{name}_list", {"train": lists.slice(0, 80), "test": lists.slice(80)}, {"kind": "time", "column": "group"}
    )
    with pytest.raises(VersionRefused, match="leaking: its split is by time, and group is list"):
        reading.read(manifest)
