"""Real data as packages ship it, through ``new dataset``: it trains, and scores what a plain script scores."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score
from threadpoolctl import threadpool_limits

from include.datasets import definitions, new
from include.datasets.profile import Answers
from include.errors import UserError
from include.training.preparation import prepared
from tests.unit.trained import trained, version

VEGA, SKLEARN = "vega_datasets/_data", "sklearn/datasets/data"


def shipped(folder: str, name: str) -> Path:
    package, _, inside = folder.partition("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / inside / name


@pytest.mark.parametrize(
    ("folder", "name", "target", "kind"),
    [
        (VEGA, "seattle-weather.csv", "weather", "classification"),
        (VEGA, "airports.csv", "state", "classification"),
        (VEGA, "us-employment.csv", "nonfarm", "regression"),
        (VEGA, "stocks.csv", "price", "regression"),
        (VEGA, "la-riots.csv", "gender", "classification"),
        (VEGA, "iowa-electricity.csv", "source", "classification"),
        (SKLEARN, "linnerud_exercise.csv", "Jumps", "regression"),
        (SKLEARN, "linnerud_physiological.csv", "Weight", "regression"),
    ],
)
def test_real_data_trains_and_scores_what_a_plain_script_scores(
    folder: str, name: str, target: str, kind: str, tmp_path: Path
) -> None:
    path = shipped(folder, name)
    new.write("real", new.read(path), Answers(target), tmp_path)
    dataset = definitions.find(tmp_path).valid["real"]
    assert dataset.kind == kind
    found = version(dataset)
    # As text, NA is a text like any other.
    plain = pd.read_csv(path, sep=" " if folder == SKLEARN else ",", keep_default_na=False, na_values=[""])
    ids = plain[dataset.record_id].tolist() if dataset.record_id in plain else list(range(len(plain)))
    places = {str(value): place for place, value in enumerate(ids)}
    train, test = (
        plain.iloc[[places[str(value)] for value in part[dataset.record_id].to_pylist()]]
        for part in (found.train, found.test)
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, evaluation = trained(dataset, found, "linear")
        model = prepared(dataset.estimators()["linear"], 0)
        model.fit(train[list(dataset.features or ())], train[target])
        predicted = model.predict(test[list(dataset.features or ())])
    score: Any = accuracy_score if kind == "classification" else r2_score
    value = next(m.value for m in evaluation.metrics if m.name == ("accuracy" if kind == "classification" else "r2"))
    assert value == pytest.approx(score(test[target], predicted), abs=1e-4)


@pytest.mark.parametrize("name", ["iris.csv", "breast_cancer.csv", "diabetes_data_raw.csv.gz", "digits.csv.gz"])
def test_real_data_without_a_header_is_one_question(name: str) -> None:
    with pytest.raises(UserError, match=r"may be a row already: .* Give --header .* or --no-header"):
        new.read(shipped(SKLEARN, name))
