"""Training: from a sealed version to fitted models and their metrics, and the verification of past runs."""
