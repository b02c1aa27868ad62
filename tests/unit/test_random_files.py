"""Random files: every file that ``new dataset`` accepts trains, with the scores of plain scikit-learn.

MILLRACE_FILES is the number of files, MILLRACE_FILES_FROM the first seed.
"""

from __future__ import annotations

import os
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, r2_score
from threadpoolctl import threadpool_limits

from cli.scaffold import dataset as new
from include.datasets import Dataset, definitions
from include.datasets.profiling import Answers
from include.datasets.sources import text
from include.errors import UserError
from include.training.preparation import prepared
from tests.unit.random_files import Maker, Random, frame
from tests.unit.trained import evaluated, trained, version

FILES = int(os.environ.get("MILLRACE_FILES", "100"))
FIRST = int(os.environ.get("MILLRACE_FILES_FROM", "0"))
TOGETHER = 10
# This share of the files must be accepted.
MIN_ACCEPTED = 0.8
REST = ("boosting", "forest")
# One model in this many is also stored and loaded.
STORED = 5


@pytest.mark.parametrize("first", range(FIRST, FIRST + FILES, TOGETHER))
def test_every_accepted_file_trains_with_the_scores_of_scikit_learn(first: int, tmp_path: Path) -> None:
    accepted = 0
    for seed in range(first, first + TOGETHER):
        folder = tmp_path / str(seed)
        folder.mkdir()
        made = Maker(seed, folder).make()
        try:
            dataset, features = defined(made, folder)
        except UserError as error:
            # Every error has a remedy.
            assert error.remedy, f"seed {seed}: {made.about}: {error}"
            assert "Traceback" not in str(error)
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {made.about}: {error!r}") from error
        accepted += 1
        try:
            require_same(made, dataset, features, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {made.about}: {error!r}") from error
    assert accepted >= MIN_ACCEPTED * TOGETHER - 2, f"{accepted} of {TOGETHER} were accepted"


def defined(made: Random, folder: Path) -> tuple[Dataset, list[str]]:
    """The definition for a file, with the options that it needs, and its features."""
    data = new.read(made.path, **made.options)
    try:
        new.write("made", data, Answers(made.target), folder)
    except UserError:
        new.write("made", data, Answers(made.target, made.kind), folder)  # type: ignore[arg-type]
    found = definitions.find(folder)
    assert not found.broken
    dataset = found.valid["made"]
    return dataset, list(dataset.features or ())


def require_read(made: Random, source: pa.Table) -> None:
    """Requires that every value was read with its meaning."""
    for name, column in made.columns.items():
        kind = source[name].type
        for value, found in zip(column.values, source[name].to_pylist(), strict=bool(column.values)):
            if pa.types.is_string(kind) and isinstance(found, str) and isinstance(value, str | None):
                missing = value is None and text.missing(pa.array([found]))[0].as_py()
                assert missing or found.strip() == (value or "").strip(), f"{name}: {found!r} is {value!r}"
            elif isinstance(value, int | float) and isinstance(found, int | float | Decimal):
                assert float(found) == value, f"{name}: {found!r} is {value!r}"
            elif value is None:
                assert found is None or pa.types.is_string(kind), f"{name}: {found!r} is missing"


def require_same(made: Random, dataset: Dataset, features: list[str], seed: int) -> None:
    """Requires that the rows read equal those written, and that the metrics equal those of scikit-learn."""
    for name, column in made.columns.items():
        if column.learned is not None and name != dataset.target and name in features:
            assert column.learned, f"{name} is learned from"
        if column.learned and name != dataset.target:
            assert name in features or name == dataset.record_id, f"{name} is not learned from"
    assert dataset.kind == made.kind or len(made.columns[made.target].values) < 60
    known = frame(made.columns, features)
    target = np.array(made.columns[made.target].values, object)
    source = dataset.source.rows(None, None)
    require_read(made, source)
    ids = {str(value): place for place, value in enumerate(source[dataset.record_id].to_pylist())}
    assert len(ids) == len(target)
    found = version(dataset)
    rows: list[Any] = [
        [ids[str(value)] for value in part[dataset.record_id].to_pylist()] for part in (found.train, found.test)
    ]
    if str(source[dataset.record_id].type) == "timestamp[ns]":
        return
    models = ["linear", REST[seed // 50 % 2]] if seed % 50 == 0 else ["linear"]
    for model in models:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = seed % STORED == 0
            evaluation = trained(dataset, found, model)[1] if stored else evaluated(dataset, found, model)
            plain = prepared(dataset.estimators()[model], 0)
            labels = [value for value in target if value is not None]
            kind = float if dataset.kind == "regression" else (str if isinstance(labels[0], str) else int)
            learned, asked = (np.array([kind(target[row]) for row in part]) for part in rows)
            plain.fit(known.iloc[rows[0]], learned)
            predicted = plain.predict(known.iloc[rows[1]])
        score = r2_score if dataset.kind == "regression" else accuracy_score
        name = "r2" if dataset.kind == "regression" else "accuracy"
        value = next((metric.value for metric in evaluation.metrics if metric.name == name), None)
        if value is None and len(asked) < 2:
            continue
        assert value == pytest.approx(score(asked, predicted), abs=1e-4), model
