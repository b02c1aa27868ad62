"""Everything that the definition of a dataset imports."""

from include.datasets.definition import Dataset
from include.datasets.sources import File, Packaged, Query
from include.datasets.splits import GroupSplit, HashSplit, TimeSplit
from include.gate.metric import Metric
from include.gate.policy import evidence, manual, not_worse_and_fresher

__all__ = [
    "Dataset",
    "File",
    "GroupSplit",
    "HashSplit",
    "Metric",
    "Packaged",
    "Query",
    "TimeSplit",
    "evidence",
    "manual",
    "not_worse_and_fresher",
]
