"""A plain script: it reads a file, fits the same models on the same rows, and scores them.

Called with the file; prints the accuracies as JSON.
"""

import json
import sys

import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

MODELS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=0)),
    "boosting": HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=10, random_state=0),
    "forest": RandomForestClassifier(n_estimators=50, min_samples_leaf=5, random_state=0),
    "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
    "naive_bayes": GaussianNB(),
    "baseline": DummyClassifier(strategy="prior"),
}
COLUMNS = ["precipitation", "temp_max", "temp_min", "wind"]

if __name__ == "__main__":
    rows = pd.read_csv(sys.argv[1], parse_dates=["date"])
    train, test = rows[rows.date.dt.year < 2015], rows[rows.date.dt.year == 2015]
    with threadpool_limits(1):
        scores = {
            name: model.fit(train[COLUMNS], train.weather).score(test[COLUMNS], test.weather)
            for name, model in MODELS.items()
        }
    print(json.dumps(scores))
