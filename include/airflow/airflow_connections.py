"""The connections as Airflow finds them: in its secrets backends, its database or the environment."""

from __future__ import annotations

from typing import Any

from include.connections import Postgres, Registry, invalid, registry_of, secret_of, undefined


class AirflowConnections:
    """See ``connections.Source``. Airflow's provider resolves the callbacks and cloud tokens of Kafka."""

    def kafka(self, name: str) -> dict[str, Any]:
        """See ``connections.Source``."""
        from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        class ConfigHook(KafkaBaseHook):
            def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
                return config

        try:
            settings: dict[str, Any] = ConfigHook(name).get_conn  # type: ignore[no-untyped-call, unused-ignore]
        except AirflowNotFoundException as error:
            raise undefined(name) from error
        except ValueError as error:
            raise invalid(name, f"{error}.", 'Set at least {"bootstrap.servers": "host:port"} in its extra.') from error
        return settings

    def postgres(self, name: str) -> Postgres:
        """See ``connections.Source``."""
        found = self._get(name)
        return Postgres(found.host, found.port, found.login, found.password, found.schema, found.extra_dejson)

    def registry(self, name: str) -> Registry:
        """See ``connections.Source``."""
        found = self._get(name)
        fields = {
            field: getattr(found, field) for field in ("conn_type", "host", "port", "schema", "login", "password")
        }
        return registry_of(name, fields | {"extra": found.extra_dejson})

    def secret(self, name: str) -> bytes:
        """See ``connections.Source``."""
        return secret_of(name, self._get(name).password)

    @staticmethod
    def _get(name: str) -> Any:
        from airflow.sdk import Connection
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            return Connection.get(name)
        except AirflowNotFoundException as error:
            raise undefined(name) from error
