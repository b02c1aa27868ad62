"""What a definition of a dataset is written with."""

from include.datasets.definition import Dataset
from include.datasets.sources import File, Packaged, Query
from include.datasets.splits import GroupSplit, HashSplit, TimeSplit

__all__ = ["Dataset", "File", "GroupSplit", "HashSplit", "Packaged", "Query", "TimeSplit"]
