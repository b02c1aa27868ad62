"""Diabetes: how far will the disease progress within a year? 442 patients, ten measures at the beginning."""

from typing import Any

from include.datasets import Dataset, HashSplit, Packaged


def models() -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge

    return {
        "ridge": Ridge(alpha=0.05),
        "boosting": HistGradientBoostingRegressor(max_iter=50, learning_rate=0.05),
        "forest": RandomForestRegressor(n_estimators=100, min_samples_leaf=5),
    }


dataset = Dataset(
    name="diabetes",
    kind="regression",
    source=Packaged("sklearn.datasets:load_diabetes", {"as_frame": True}, number="patient"),
    record_id="patient",
    target="target",
    split=HashSplit(test=0.25),
    models=models,
)
