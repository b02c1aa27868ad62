"""Training: from a sealed version to fitted models and what they are worth; and past runs derived again."""
