"""Handwritten digits: which of the ten digits does an image show? 1,797 images of 8 by 8 pixels."""

from typing import Any

from include.datasets import Dataset, HashSplit, Packaged


def models() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "forest": RandomForestClassifier(n_estimators=100),
        "support_vectors": SVC(gamma=0.001),
    }


dataset = Dataset(
    name="digits",
    source=Packaged("sklearn.datasets:load_digits", {"as_frame": True}, number="image"),
    record_id="image",
    target="target",
    split=HashSplit(test=0.25),
    models=models,
)
