"""Sources of datasets' rows. Nothing is opened or imported before the rows are read."""

from include.datasets.sources.file import File
from include.datasets.sources.packaged import Packaged
from include.datasets.sources.query import Query
from include.datasets.sources.source import Scan, Source, Whole

__all__ = ["File", "Packaged", "Query", "Scan", "Source", "Whole"]
