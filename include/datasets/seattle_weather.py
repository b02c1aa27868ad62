"""The weather of Seattle: drizzle, fog, rain, snow or sun? 1,461 days of 2012 to 2015: temperatures, rain and wind.

Each year has a version. Its models train on all earlier years and are tested on this year. The accuracy shows what
retraining gains: it rises with the number of years that the models have learned from.
"""

from datetime import date
from typing import Any

from include.datasets import Dataset, Packaged, TimeSplit


def models() -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "boosting": HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=10),
        "forest": RandomForestClassifier(n_estimators=50, min_samples_leaf=5),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
        "naive_bayes": GaussianNB(),
    }


dataset = Dataset(
    name="seattle_weather",
    source=Packaged("vega_datasets:data.seattle_weather"),
    record_id="date",
    event_time="date",
    target="weather",
    split=TimeSplit(test="365 days"),
    models=models,
    schedule="@yearly",
    start=date(2013, 1, 1),
    end=date(2016, 1, 1),
    keep="5 versions",
    slices={"quarter": "date.dt.quarter"},
)
