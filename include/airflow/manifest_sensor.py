"""The sensor that waits for manifests on the control topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.airflow.backlog import BacklogSensor
from include.versions.catalog import DISPATCH
from include.versions.manifest import CONTROL_TOPIC
from include.versions.publication import TOPIC_CONFIG

if TYPE_CHECKING:
    from airflow.sdk import Context


class ManifestSensor(BacklogSensor):
    """Waits for manifests; succeeds at once while a version of ``datasets`` has no run."""

    def __init__(self, *, datasets: list[str], **kwargs: Any) -> None:
        super().__init__(reader=DISPATCH, kafka_topic=CONTROL_TOPIC, **kwargs)
        self.datasets = datasets

    def execute(self, context: Context) -> int:
        """Checks once, then defers. Returns the number of waiting versions or offsets."""
        from include.airflow import dag_runs
        from include.kafka import topics
        from include.training import dispatch

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
        topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG)
        return len(dispatch.to_start(self.datasets)) or super().execute(context)
