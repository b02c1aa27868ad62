"""The retraining side of a simulated year: each day a version, a training run on it, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from include.datasets import Dataset, HashSplit
from include.datasets.sources import Source
from include.kafka import topics
from include.promotion import evaluation_queue
from include.training import dispatch, fitting, run
from include.training.verification import verify_run
from include.versions import retention
from include.versions.manifest import Interval
from include.versions.publication import publish

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

ROWS = 400
SEASONS = 4
DAY = timedelta(days=1)


@dataclass
class Window(Source):
    """The records of a day; in each season another feature predicts the target."""

    day: int = 0
    season: int = 0

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        draw = np.random.default_rng(self.day)
        columns = {f"x{number}": draw.normal(size=ROWS) for number in range(SEASONS)}
        target = np.where(columns[f"x{self.season}"] > 0, "yes", "no")
        return pa.table({"id": np.arange(ROWS) + self.day * ROWS, **columns, "target": target})


@dataclass
class Retraining:
    """A dataset of daily windows, and its training runs so far.

    Args:
        days: The number of days, which decides the seasons.
        keep: The number of versions to keep.
    """

    name: str
    days: int
    keep: int
    runs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = Window()
        self.dataset = Dataset(
            name=self.name,
            source=self.source,
            record_id="id",
            target="target",
            split=HashSplit(test=0.5),
            models=_models,
            keep=f"{self.keep} versions",
        )

    def live(self, connection: Connection, day: int, today: datetime) -> None:
        """Publishes the version of a day, trains on it, judges it, and expires old versions."""
        self.source.day, self.source.season = day, SEASONS * day // self.days
        version = publish(self.dataset, Interval(today - DAY, today), asked_by="bench").version
        dispatch.land("bench")
        planned = run.begin(self.dataset, run.sealed_run_id(version), {"version": version, "seed": 0}, "bench")
        for task in planned:
            fitting.fit(self.dataset, task["run"], task["model"])
        run.settle(planned)
        evaluation_queue.evaluate_pending_runs(self.dataset)
        self.runs.append(int(planned[0]["run"]))
        retention.expire(connection, self.dataset)

    def messages(self) -> int:
        """The number of messages in Kafka."""
        extents = topics.extents(self.dataset.topic, topics.describe(self.dataset.topic).partitions)
        return sum(extent.end - extent.first for extent in extents.values())

    def wrong(self) -> list[str]:
        """The runs on kept versions that cannot be reproduced."""
        found = {run: verify_run(run, "bench").outcome for run in self.runs[-self.keep :]}
        return [f"verify run {run}: {outcome}" for run, outcome in found.items() if outcome != "identical"]


def _models() -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": DecisionTreeClassifier(max_depth=3)}
