"""Artifacts: a stored model loads; a manipulated one is refused before any of it is executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import Birch
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from include.error_codes import Code
from include.registry import artifact
from include.registry.artifact import UntrustedArtifact
from tests.errors import raises

MODELS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "logarithms": make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500)),
    "forest": RandomForestClassifier(10, random_state=0),
    "boosting": HistGradientBoostingClassifier(max_iter=5),
    "neighbours": KNeighborsClassifier(),
    "network": MLPClassifier((4,), tol=1.0, random_state=0),
}


class Doubled(TransformerMixin, BaseEstimator):
    """A transformer of a definition."""

    def fit(self, rows: Any, target: Any = None) -> Doubled:
        return self

    def transform(self, rows: Any) -> Any:
        return rows * 2


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """A file that exists once any part of an artifact was executed."""
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists(), "a part of the artifact was executed"


@pytest.fixture
def stranger(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that creates the mark when it is imported."""
    (tmp_path / "stranger.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n\nclass Model: ...\n\ndef act(*_): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return "stranger"


@pytest.fixture(scope="module")
def good() -> bytes:
    rows, target = load_iris(return_X_y=True)
    return artifact.dumps(RandomForestClassifier(3, random_state=0).fit(rows, target))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def altered(content: bytes, change: Callable[[dict[str, Any]], None], **files: bytes) -> bytes:
    """The artifact with its schema changed and files added; tests give it a matching digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            value = old.read(name)
            if name == "schema.json":
                schema = json.loads(value)
                change(schema)
                value = json.dumps(schema).encode()
            new.writestr(name, files.pop(name, value))
        for name, value in files.items():
            new.writestr(name, value)
    return buffer.getvalue()


def node(loader: str, module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"__loader__": loader, "__module__": module, "__class__": name, "__id__": 1, **more}


def text(value: str) -> dict[str, Any]:
    return node("JsonNode", "builtins", "str", content=json.dumps(value), is_json=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_loads_and_predicts_the_same(name: str) -> None:
    rows, target = load_iris(return_X_y=True)
    model = MODELS[name].fit(rows, target)
    content = artifact.dumps(model)
    loaded = artifact.loads(content, digest(content))
    assert (loaded.predict_proba(rows) == model.predict_proba(rows)).all()


def test_a_changed_byte_is_refused(good: bytes) -> None:
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    with raises(Code.ARTIFACT_CHANGED, digest(good)[:12], digest(changed)[:12], kind=UntrustedArtifact):
        artifact.loads(changed, digest(good))


def test_a_foreign_type_is_refused_and_not_imported(good: bytes, stranger: str, mark: Path) -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["estimator"] = node("ObjectNode", stranger, "Model")

    content = altered(good, change)
    with raises(Code.UNTRUSTED_TYPE, "stranger.Model", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))
    assert stranger not in sys.modules


@pytest.mark.parametrize("loader", ["FunctionNode", "TypeNode"])
def test_a_foreign_function_is_refused_and_not_imported(good: bytes, stranger: str, mark: Path, loader: str) -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["estimator"] = node(loader, stranger, "act")

    content = altered(good, change)
    with raises(Code.UNTRUSTED_TYPE, "stranger.act", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))
    assert stranger not in sys.modules


@pytest.mark.parametrize("loader", ["MethodNode", "OperatorFuncNode", "ConstructorFromReduceNode"])
def test_a_node_that_calls_something_is_refused(good: bytes, mark: Path, loader: str) -> None:
    def change(schema: dict[str, Any]) -> None:
        call = node(loader, "operator", "methodcaller", attrs=text("system"), content=text("true"))
        schema["content"]["content"]["estimator"] = call

    content = altered(good, change)
    with raises(Code.UNTRUSTED_TYPE, loader, kind=UntrustedArtifact):
        artifact.loads(content, digest(content))


def test_a_trust_list_in_the_artifact_is_ignored(good: bytes, stranger: str, mark: Path) -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["estimator"] = node("ObjectNode", stranger, "Model")
        schema["trusted"] = schema["content"]["trusted"] = [f"{stranger}.Model"]

    content = altered(good, change)
    with raises(Code.UNTRUSTED_TYPE, "stranger.Model", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))
    listed = altered(good, change, **{"trusted.json": json.dumps([f"{stranger}.Model"]).encode()})
    with raises(Code.UNTRUSTED_TYPE, "'trusted.json'", kind=UntrustedArtifact):
        artifact.loads(listed, digest(listed))


def test_a_pickle_is_refused(mark: Path) -> None:
    content = pickle.dumps(Trap(mark))
    with raises(Code.ARTIFACT_UNREADABLE, kind=UntrustedArtifact):
        artifact.loads(content, digest(content))


def test_a_pickle_inside_is_refused(good: bytes, mark: Path) -> None:
    with_file = altered(good, lambda schema: None, **{"model.pkl": pickle.dumps(Trap(mark))})
    with raises(Code.UNTRUSTED_TYPE, "'model.pkl'", kind=UntrustedArtifact):
        artifact.loads(with_file, digest(with_file))


def test_a_pickle_inside_an_array_is_refused(good: bytes, mark: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        array = next(name for name in archive.namelist() if name.endswith(".npy"))
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    content = altered(good, lambda schema: None, **{array: buffer.getvalue()})
    with raises(Code.ARTIFACT_UNREADABLE, "Object arrays", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))


def test_an_older_format_is_refused(good: bytes) -> None:
    """Older formats were checked less strictly, and an artifact could choose one."""
    content = altered(good, lambda schema: schema.update(protocol=0))
    with raises(Code.ARTIFACT_UNREADABLE, "format 0", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))


def test_a_transformer_loads_if_the_definition_trusts_it() -> None:
    rows, target = load_iris(return_X_y=True)
    content = artifact.dumps(make_pipeline(Doubled(), LogisticRegression(max_iter=500)).fit(rows, target))
    own = f"{Doubled.__module__}.Doubled"
    with raises(Code.UNTRUSTED_TYPE, own, kind=UntrustedArtifact):
        artifact.loads(content, digest(content))
    assert artifact.loads(content, digest(content), trusted=[own]).predict(rows).shape == target.shape


@pytest.mark.parametrize(
    "name",
    [
        "",
        "builtins.eval",
        "joblib.load",
        "numpy.fromfile",
        "numpy.load",
        "os.system",
        "pandas.read_pickle",
        "scipy.stats._distn_infrastructure.rv_continuous_frozen",
        "sklearn",
        "sklearn.cluster._kmeans.k_means",
        "sklearn.datasets._base.load_files",
        "sklearn.tree",
        "sklearn.utils._testing.ignore_warnings",
    ],
)
def test_functions_that_read_files_or_run_code_are_not_allowed(name: str) -> None:
    assert not artifact.allowed(name)


def test_a_partial_is_allowed_if_its_function_is(good: bytes, stranger: str, mark: Path) -> None:
    model = FunctionTransformer(partial(np.clip, a_min=0, a_max=1))
    content = artifact.require_storable(model)
    assert artifact.loads(content, digest(content)).fit_transform([[7.0]]) == [[1.0]]

    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["func"]["content"]["func"] = node("FunctionNode", stranger, "act")

    content = altered(content, change)
    with raises(Code.UNTRUSTED_TYPE, "stranger.act", kind=UntrustedArtifact):
        artifact.loads(content, digest(content))


@pytest.mark.parametrize(
    ("estimator", "code", "named"),
    [
        (make_pipeline(FunctionTransformer(lambda rows: rows), LogisticRegression()), Code.UNTRUSTED_TYPE, "<lambda>"),
        (make_pipeline(Doubled(), LogisticRegression()), Code.UNTRUSTED_TYPE, "test_artifact.Doubled"),
        (FunctionTransformer(str.upper), Code.UNTRUSTED_TYPE, "method_descriptor"),
        (make_pipeline(Birch(), LogisticRegression()), Code.MODEL_NOT_STORABLE, "Objects of type Birch"),
    ],
    ids=["lambda", "class of the definition", "method", "Birch"],
)
def test_an_estimator_that_cannot_be_stored_is_named(estimator: Any, code: Code, named: str) -> None:
    with raises(code, named, kind=UntrustedArtifact):
        artifact.require_storable(estimator)
