"""Real data as packages ship it, through ``new dataset``: it trains, and scores what a plain script scores."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score
from threadpoolctl import threadpool_limits

from cli.scaffold import dataset as new
from include.datasets import definitions
from include.datasets.profiling import Answers
from include.error_codes import Code
from include.training.preparation import prepared
from tests.errors import raises
from tests.unit.trained import trained, version

VEGA, SKLEARN, PENGUINS = "vega_datasets/_data", "sklearn/datasets/data", "palmerpenguins/data"
FARAWAY, RIVER, LEGO = "faraway/datasets", "river/datasets", "sklego/data"
BLANK = " "
# Folder, file, target, what is predicted, and what the command has to be answered first.
TRAINED: list[tuple[str, str, str, str, dict[str, Any]]] = [
    (VEGA, "seattle-weather.csv", "weather", "classification", {}),
    (VEGA, "airports.csv", "state", "classification", {"nulls": ["NA"]}),
    (VEGA, "us-employment.csv", "nonfarm", "regression", {}),
    (VEGA, "stocks.csv", "price", "regression", {}),
    (VEGA, "la-riots.csv", "gender", "classification", {}),
    (VEGA, "iowa-electricity.csv", "source", "classification", {}),
    (SKLEARN, "linnerud_exercise.csv", "Jumps", "regression", {}),
    (SKLEARN, "linnerud_physiological.csv", "Weight", "regression", {}),
    (PENGUINS, "penguins.csv", "species", "classification", {}),
    (PENGUINS, "penguins.csv", "sex", "classification", {"nulls": ["NA"]}),
    (PENGUINS, "penguins-raw.csv", "Body Mass (g)", "regression", {}),
    (LEGO, "abalone.zip", "rings", "regression", {}),
    (LEGO, "arrests.zip", "released", "classification", {}),
    (LEGO, "hearts.zip", "target", "classification", {}),
    (LEGO, "heroes.zip", "role", "classification", {}),
    (RIVER, "phishing.csv.gz", "is_phishing", "classification", {}),
    (RIVER, "solar-flare.csv.zip", "c-class-flares", "classification", {}),
    (RIVER, "sp500.csv.gz", "next_day_return", "regression", {}),
    (RIVER, "trump_approval.csv.gz", "five_thirty_eight", "regression", {}),
    (FARAWAY, "hsb/hsb.csv.bz2", "prog", "classification", {}),
    (FARAWAY, "chmiss/chmiss.csv.bz2", "involact", "regression", {}),
    # Row names without a name: numbers, words, and numbers in quotation marks.
    (FARAWAY, "jsp/jsp.csv.bz2", "math", "regression", {}),
    (FARAWAY, "galamiss/galamiss.csv.bz2", "Species", "regression", {}),
    (FARAWAY, "warpbreaks/warpbreaks.csv.bz2", "tension", "classification", {}),
]


def shipped(folder: str, name: str) -> Path:
    package, _, inside = folder.partition("/")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / inside / name


def plainly(path: Path, answers: dict[str, Any]) -> pd.DataFrame:
    """The file as a script reads it; as text, NA is a text like any other."""
    missing = ["", *answers.get("nulls", ())]
    separator = BLANK if path.name.startswith("linnerud") else ","
    found = pd.read_csv(path, sep=separator, keep_default_na=False, na_values=missing, index_col=False, nrows=0)
    width = len(pd.read_csv(path, sep=separator, header=None, skiprows=1, nrows=1).columns)
    names = [*["Unnamed: 0"] * (width - len(found.columns)), *found.columns]
    rows = pd.read_csv(path, sep=separator, keep_default_na=False, na_values=missing, names=names, skiprows=1)
    for column in rows.columns:
        with contextlib.suppress(ValueError):
            rows[column] = pd.to_numeric(rows[column].replace("NA", None))
    return rows


@pytest.mark.parametrize(
    ("folder", "name", "target", "kind", "answers"), TRAINED, ids=[f"{row[1]} {row[2]}" for row in TRAINED]
)
def test_real_data_trains_and_scores_what_a_plain_script_scores(
    folder: str, name: str, target: str, kind: str, answers: dict[str, Any], tmp_path: Path
) -> None:
    path = shipped(folder, name)
    if answers:
        with raises(Code.TARGET_UNCLEAR, "'NA' in ", "--null NA"):
            new.write("real", new.read(path), Answers(target), tmp_path)
    new.write("real", new.read(path, **answers), Answers(target), tmp_path)
    dataset = definitions.find(tmp_path).valid["real"]
    assert dataset.kind == kind
    found = version(dataset)
    plain = plainly(path, answers)
    ids = plain[dataset.record_id].tolist() if dataset.record_id in plain else list(range(len(plain)))
    places = {str(value): place for place, value in enumerate(ids)}
    train, test = (
        plain.iloc[[places[str(value)] for value in part[dataset.record_id].to_pylist()]]
        for part in (found.train, found.test)
    )
    assert len(train) + len(test) == plain[target].notna().sum()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, evaluation = trained(dataset, found, "linear")
        model = prepared(dataset.estimators()["linear"], 0)
        model.fit(train[list(dataset.features or ())], train[target])
        predicted = model.predict(test[list(dataset.features or ())])
    score: Any = accuracy_score if kind == "classification" else r2_score
    value = next(m.value for m in evaluation.metrics if m.name == ("accuracy" if kind == "classification" else "r2"))
    assert value == pytest.approx(score(test[target], predicted), abs=1e-4)


def test_a_frame_of_a_package_trains_as_parquet_with_its_index(tmp_path: Path) -> None:
    rows = pd.read_csv(shipped(PENGUINS, "penguins.csv"))
    rows["species"] = rows["species"].astype("category")
    rows.sample(frac=1, random_state=0).to_parquet(tmp_path / "penguins.parquet")
    new.write("real", tmp_path / "penguins.parquet", "sex", tmp_path)
    dataset = definitions.find(tmp_path).valid["real"]
    assert dataset.record_id == "__index_level_0__" and "species" in (dataset.features or ())
    with threadpool_limits(1):
        _, evaluation = trained(dataset, version(dataset), "linear")
    assert next(metric.value for metric in evaluation.metrics if metric.name == "accuracy") > 0.8


@pytest.mark.parametrize(
    ("folder", "name", "target", "code", "values"),
    [
        (
            RIVER,
            "airline-passengers.csv",
            "passengers",
            Code.FEATURES_MISSING,
            ["'month' (text with 144", "--feature month"],
        ),
        (RIVER, "water-flow.csv", "Water flow [l/s]", Code.FEATURES_MISSING, ["'Time' (", "the time)"]),
        (
            FARAWAY,
            "aatemp/aatemp.csv.bz2",
            "temp",
            Code.FEATURES_MISSING,
            ["'year' (numbers the rows)", "--feature year"],
        ),
        (LEGO, "heroes.zip", "name", Code.TARGET_UNCLEAR, ["84 different values in 84 rows"]),
    ],
)
def test_real_data_with_nothing_to_learn_is_one_error(
    folder: str, name: str, target: str, code: Code, values: list[str], tmp_path: Path
) -> None:
    with raises(code, *values):
        new.write("real", shipped(folder, name), target, tmp_path)


@pytest.mark.parametrize("name", ["iris.csv", "breast_cancer.csv", "diabetes_data_raw.csv.gz", "digits.csv.gz"])
def test_real_data_without_a_header_is_one_question(name: str) -> None:
    with raises(Code.HEADER_UNCLEAR, name, "--header", "--no-header"):
        new.read(shipped(SKLEARN, name))
