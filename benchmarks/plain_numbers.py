"""A plain script for many rows: it reads a file, fits models one by one, and scores them.

Called with the file; prints the accuracies as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd


def models() -> dict[str, Any]:
    """Five models whose fits of a million rows take seconds, not minutes."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=100, random_state=0)),
        "boosting": HistGradientBoostingClassifier(max_iter=30, random_state=0),
        "gradient_descent": make_pipeline(StandardScaler(), SGDClassifier(max_iter=5, tol=None, random_state=0)),
        "tree": DecisionTreeClassifier(max_depth=6, random_state=0),
        "naive_bayes": GaussianNB(),
    }


def divide(source: Path, target: Path) -> None:
    """Writes the file that the script reads: the same rows, with a column that marks the test rows."""
    import pyarrow as pa
    from pyarrow import parquet

    from benchmarks.peers.publishing import dataset

    rows = parquet.read_table(source)
    split = dataset("divided", str(source))
    tests = split.split.tests(rows, split, None)
    parquet.write_table(rows.append_column("tests", pa.array(tests)), target, compression="none", use_dictionary=False)


if __name__ == "__main__":
    from sklearn.dummy import DummyClassifier
    from threadpoolctl import threadpool_limits

    rows = pd.read_parquet(sys.argv[1])
    columns = [name for name in rows.columns if name.startswith("x")]
    train, test = rows[~rows.tests], rows[rows.tests]
    with threadpool_limits(1):
        scores = {
            name: model.fit(train[columns], train.target).score(test[columns], test.target)
            for name, model in {**models(), "baseline": DummyClassifier(strategy="prior")}.items()
        }
    print(json.dumps(scores))
