"""Training: from a sealed version to fitted models, their metrics, and the verdict on them."""
