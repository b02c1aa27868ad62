"""The connections as Airflow knows them: from its secrets backends, its database or the environment."""

from __future__ import annotations

from typing import Any

from include.connections import Postgres, undefined, unusable


class AirflowConnections:
    """See ``connections.Source``; callbacks and cloud tokens of Kafka are resolved as Airflow's provider does."""

    def kafka(self, name: str) -> dict[str, Any]:
        """See ``connections.Source``."""
        from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        class ConfigHook(KafkaBaseHook):
            def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
                return config

        try:
            return ConfigHook(name).get_conn
        except AirflowNotFoundException as error:
            raise undefined(name) from error
        except ValueError as error:
            raise unusable(name, error, 'Its extra needs at least {"bootstrap.servers": "host:port"}.') from error

    def postgres(self, name: str) -> Postgres:
        """See ``connections.Source``."""
        from airflow.sdk import Connection
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            found = Connection.get(name)
        except AirflowNotFoundException as error:
            raise undefined(name) from error
        return Postgres(found.host, found.port, found.login, found.password, found.schema, found.extra_dejson)
