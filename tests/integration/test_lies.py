"""False manifests of foreign programs are refused with one error, and do not delay other versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from include.datasets.hashing import RULE
from include.error_codes import Code
from include.kafka import publisher, topics
from include.training import dispatch, fitting, run
from include.versions import catalog, reading
from include.versions.manifest import CONTROL_TOPIC, Manifest, version_id
from include.versions.publication import TOPIC_CONFIG
from tests.errors import raises
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
    ("target", "changes", "reason"),
    [
        (WORDS, {"classes": ["no"]}, "the target 'yes' is not one of the manifest's classes, 'no'."),
        (WORDS, {"classes": ["Yes", "no"]}, "the target 'yes' is not one of"),
        (WORDS, {"classes": ["yes", "no"]}, "'yes', 'no', are not ascending values of the target's type, string"),
        (WORDS, {"classes": ["no", "no", "yes"]}, "are not ascending values of the target's type, string"),
        (WORDS, {"classes": []}, "classes, none, are not ascending values of the target's type, string"),
        (WORDS, {"classes": [0, 1]}, "classes, 0, 1, are not ascending values of the target's type, string"),
        (WORDS, {"classes": ["no", 1]}, "are not ascending values of the target's type, string"),
        (NUMBERS, {"classes": ["0", "1"]}, "are not ascending values of the target's type, int64"),
        (NUMBERS, {"classes": [0.0, 1.0]}, "classes, 0.0, 1.0, are not ascending values of the target's type, int64"),
        (NUMBERS, {"classes": [False, True]}, "are not ascending values of the target's type, int64"),
        (NUMBERS.cast(pa.int8()), {"classes": [0, 1, 300]}, "are not ascending values of the target's type, int8"),
        (NUMBERS.cast(pa.bool_()), {"classes": [0, 1]}, "are not ascending values of the target's type, bool"),
        (
            NUMBERS.cast(pa.int32()).cast(pa.date32()),
            {"classes": ["1970-01-01", "1970-01-02"]},
            "not ascending values of the target's type, date32",
        ),
        (DOUBLES, {"classes": [0.0, 2.0]}, "the target 1.0 is not one of"),
        (WORDS, {"kind": "regression", "classes": []}, "of a regression, but the target target is string"),
        (
            NUMBERS.cast(pa.bool_()),
            {"kind": "regression", "classes": []},
            "of a regression, but the target target is bool",
        ),
        (
            pa.array([None, *[1.5] * 99]),
            {"kind": "regression", "classes": []},
            "1 or more records have a target",
        ),
        (
            pa.array([1.5] * 99 + [np.nan]),
            {"kind": "regression", "classes": []},
            "1 or more records have a target",
        ),
        (pa.array([np.inf, *[1.5] * 99]), {"kind": "regression", "classes": []}, "that is missing or not finite"),
        (
            pa.array([None, *["yes"] * 99]),
            {"classes": ["no", "yes"]},
            "1 or more records have a target",
        ),
        (pa.nulls(100), {"classes": ["no", "yes"]}, "are not ascending values of the target's type, null"),
    ],
)
@pytest.mark.altered
def test_kind_and_classes_that_contradict_the_rows_are_refused_as_altered(
    name: str, target: pa.Array, changes: dict[str, Any], reason: str
) -> None:
    manifest = foreign.seal(name, with_target(signal(100), target), SOMEHOW, **changes)
    for look in (reading.read, reading.prove):
        with raises(Code.VERSION_ALTERED, "is refused, altered: ", reason):
            look(manifest)


def test_no_model_is_fitted_to_a_false_version(name: str, warehouse: Connection) -> None:
    foreign.seal(name, with_target(signal(100), WORDS), SOMEHOW, classes=["no"])
    for out_of_core in ("never", "always"):
        dataset = replace(given(lambda _: name, signal(1), models=naive), name=name, out_of_core=out_of_core)
        planned = run.begin(dataset, out_of_core, {}, "test")
        with raises(Code.VERSION_ALTERED, "the target 'yes'"):
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
def test_a_class_without_rows_is_allowed(name: str, target: pa.Array, classes: list[Any]) -> None:
    manifest = foreign.seal(name, with_target(signal(100), target), SOMEHOW, classes=classes)
    train(replace(given(lambda _: name, signal(1)), name=name), manifest.version)


def other(manifest: Manifest, **fields: Any) -> dict[str, Any]:
    """The manifest as JSON with other fields, and the version's id that follows from them."""
    built: dict[str, Any] = msgspec.to_builtins(manifest) | fields
    if "messages" in fields or "topic" in fields:
        messages = [msgspec.convert(m, type(manifest.messages[0]), strict=False) for m in built["messages"][:0]]
        built["version"] = fields.get("version") or version_id(built["topic"], messages or manifest.messages)
    return built


HASHED = {"kind": "hash", "column": "id", "salt": "", "test": 0.5, "hash": RULE}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": "millrace.manifest/9"}, "is not a manifest"),
        ({"dataset": None}, "is not a manifest"),
        ({"dataset": "a\0b"}, "cannot store the manifest"),
        ({"version": "0" * 64}, "version is not the SHA-256"),
        ({"topic": 7}, "is not a manifest"),
        ({"publication": ""}, "is not a manifest"),
        ({"kind": "ranking"}, "is not a manifest"),
        ({"record_id": "nowhere"}, "no column nowhere"),
        ({"record_id": "target"}, "target 'target' is also its record_id"),
        ({"event_time": "nowhere"}, "no column nowhere"),
        ({"event_time": ["x"]}, "is not a manifest"),
        ({"target": "x"}, "target 'x' is also among its features"),
        ({"features": []}, "is not a manifest"),
        ({"features": ["x", "x"]}, "list of features names a column twice"),
        ({"features": ["x", "nowhere"]}, "no column nowhere"),
        (
            {"columns": [{"name": n, "type": "double"} for n in ("id", "id", "x", "noise", "target")]},
            "schema names a column twice",
        ),
        ({"columns": [{"name": "id"}]}, "is not a manifest"),
        ({"split": []}, "is not a manifest"),
        (
            {"split": {"kind": "time", "column": "nowhere"}},
            "no column 'nowhere', but its split, 'time', needs it",
        ),
        ({"split": {"kind": "group", "column": ["id"]}}, "no column ['id'], but its split, 'group', needs it"),
        ({"split": HASHED | {"test": -0.5}}, "the share -0.5"),
        ({"split": HASHED | {"test": 1e300}}, "the share 1e"),
        ({"split": HASHED | {"salt": None}}, "the salt None"),
        ({"split": {"kind": "by\0hand"}}, "cannot store the manifest"),
        ({"classes": [None, "yes"]}, "is not a manifest"),
        ({"classes": [["no"]]}, "is not a manifest"),
        ({"rows": {"train": 80}}, "has 0 test rows"),
        ({"rows": {"train": 10**30, "test": 20}}, "is not a manifest"),
        ({"rows": {"train": -80, "test": 20}}, "is not a manifest"),
        ({"messages": []}, "is not a manifest"),
        ({"interval": {"start": "0001-01-01T00:00:00+05:30"}}, "which is not a time in UTC"),
        ({"interval": {"start": "yesterday"}}, "is not a manifest"),
        ({"asked_by": "a\0b"}, "cannot store the manifest"),
        ({"parameters": [1]}, "is not a manifest"),
        ({"code": 5}, "is not a manifest"),
    ],
)
@pytest.mark.altered
def test_a_manifest_with_an_invalid_field_is_kept_and_does_not_delay_others(
    name: str, warehouse: Connection, fields: dict[str, Any], reason: str
) -> None:
    truth = foreign.seal(f"{name}_true", with_target(signal(100), WORDS), SOMEHOW)
    before = offset(warehouse)
    send(msgspec.json.encode(msgspec.to_builtins(truth) | {"dataset": name} | fields))
    assert dispatch.land("test") == 1
    (found,) = ask(warehouse, "SELECT reason FROM millrace.refused_manifest WHERE manifest_offset > %s", before)
    assert reason in found.reason
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
def test_missing_rows_and_offsets_are_refused(name: str, warehouse: Connection) -> None:
    truth = foreign.seal(name, with_target(signal(100), WORDS), SOMEHOW)

    def lie(**fields: Any) -> Manifest:
        messages = [msgspec.structs.replace(m, **fields) if m.split == "train" else m for m in truth.messages]
        rows = {"train": sum(m.rows for m in messages if m.split == "train"), "test": 20}
        return msgspec.structs.replace(truth, messages=messages, rows=rows, version=version_id(truth.topic, messages))

    nowhere = msgspec.structs.replace(truth, topic="nowhere", version=version_id("nowhere", truth.messages))
    for manifest, code, value in (
        (lie(rows=81), Code.VERSION_ALTERED, "not 81"),
        (lie(rows=10**7), Code.VERSION_ALTERED, "not 10000000"),
        (lie(partition=9), Code.VERSION_SHORT, "has no partition 9"),
        (lie(offset=10**15), Code.VERSION_SHORT, ""),
        (lie(sha256="0" * 64), Code.VERSION_ALTERED, "digest"),
        (nowhere, Code.VERSION_TRIMMED, "nowhere"),
        (msgspec.structs.replace(truth, columns=truth.columns[::-1]), Code.VERSION_ALTERED, "another schema"),
    ):
        with raises(code, value):
            reading.read(manifest)
    truthful = msgspec.structs.replace(truth, record_id="noise", features=["x"])
    assert reading.read(truthful).train.num_rows == 80


@pytest.mark.altered
def test_rows_without_a_value_in_the_splits_column_are_refused(name: str) -> None:
    rows = signal(100).append_column("group", pa.array([None, *["a"] * 99]))
    parts = {"train": rows.slice(0, 80), "test": rows.slice(80)}
    for kind in ("group", "time"):
        manifest = foreign.seal(f"{name}_{kind}", parts, {"kind": kind, "column": "group"})
        with raises(Code.VERSION_LEAKING, "1 or more train records have no group"):
            reading.read(manifest)
    lists = signal(100).append_column("group", pa.array([[1]] * 100))
    manifest = foreign.seal(
        f"{name}_list", {"train": lists.slice(0, 80), "test": lists.slice(80)}, {"kind": "time", "column": "group"}
    )
    with raises(Code.VERSION_LEAKING, "by time", "group is list"):
        reading.read(manifest)
