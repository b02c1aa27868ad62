"""The connections of commands: from the environment, or from Airflow where its Kafka provider is needed."""

from __future__ import annotations

from typing import Any

from include.connections import Environment

# What only Airflow's Kafka provider resolves: callbacks by their names, and the tokens of two clouds.
_CALLBACKS = frozenset({"error_cb", "throttle_cb", "stats_cb", "log_cb", "oauth_cb", "on_commit"})
_CLOUDS = ("amazonaws.com", "cloud.goog")


class CommandConnections(Environment):
    """See ``connections.Source``. Most commands do not have to import Airflow for their connections."""

    def kafka(self, name: str) -> dict[str, Any]:
        """See ``connections.Source``."""
        settings = super().kafka(name)
        servers = str(settings["bootstrap.servers"])
        if not _CALLBACKS & settings.keys() and not any(cloud in servers for cloud in _CLOUDS):
            return settings
        from include.airflow.airflow_connections import AirflowConnections

        return AirflowConnections().kafka(name)
