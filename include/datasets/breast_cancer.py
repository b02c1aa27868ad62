"""Breast cancer in Wisconsin: is a biopsy malignant (0) or benign (1)? 569 biopsies, 30 measures of the cell nuclei."""

from typing import Any

from include.datasets import Dataset, HashSplit, Packaged, manual


def models() -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "boosting": HistGradientBoostingClassifier(max_iter=50),
        "forest": RandomForestClassifier(n_estimators=100),
    }


dataset = Dataset(
    name="breast_cancer",
    source=Packaged("sklearn.datasets:load_breast_cancer", {"as_frame": True}, number="biopsy"),
    record_id="biopsy",
    target="target",
    split=HashSplit(test=0.25),
    models=models,
    # A person decides whether a model may advise physicians.
    promotion=manual(),
)
