"""The connections to Kafka and PostgreSQL: from the environment, or from Airflow inside its processes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from include.error_codes import Code
from include.errors import UserError

KAFKA, POSTGRES = "millrace_kafka", "millrace_postgres"


@dataclass(frozen=True)
class Postgres:
    """The address of a database and the login.

    Attributes:
        extra: Further parameters of libpq.
    """

    host: str | None
    port: int | None
    login: str | None
    password: str | None
    database: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Where connections come from. Each method raises UserError when the connection is undefined or invalid."""

    def kafka(self, name: str) -> dict[str, Any]:
        """The librdkafka settings of a connection."""

    def postgres(self, name: str) -> Postgres:
        """The address and login of a connection."""


class Environment:
    """Connections as ``./millrace env`` prints them: ``AIRFLOW_CONN_<ID>``, JSON or, for PostgreSQL, a URL."""

    def kafka(self, name: str) -> dict[str, Any]:
        """See ``Source``."""
        extra = self._read(name).get("extra") or {}
        settings: dict[str, Any] = json.loads(extra) if isinstance(extra, str) else dict(extra)
        if not settings.get("bootstrap.servers"):
            raise invalid(
                name, "it does not name brokers.", 'Set at least {"bootstrap.servers": "host:port"} in its extra.'
            )
        return settings

    def postgres(self, name: str) -> Postgres:
        """See ``Source``."""
        found = self._read(name)
        extra = found.get("extra") or {}
        return Postgres(
            found.get("host"),
            int(found["port"]) if found.get("port") else None,
            found.get("login"),
            found.get("password"),
            found.get("schema"),
            json.loads(extra) if isinstance(extra, str) else extra,
        )

    @staticmethod
    def _read(name: str) -> dict[str, Any]:
        variable = f"AIRFLOW_CONN_{name.upper()}"
        text = os.environ.get(variable, "").strip()
        if not text:
            raise undefined(name)
        if "://" in text and not text.startswith("{"):
            url = urlsplit(text)
            return {
                "host": unquote(url.hostname or ""),
                "port": url.port,
                "login": unquote(url.username or ""),
                "password": unquote(url.password or ""),
                "schema": unquote(url.path.lstrip("/")),
                "extra": dict(parse_qsl(url.query)),
            }
        try:
            found = json.loads(text)
        except ValueError as error:
            raise invalid(name, f"{variable} is not JSON: {error}.", "Set it as `./millrace env` prints it.") from error
        if not isinstance(found, dict):
            raise invalid(name, f"{variable} is not a JSON object.", "Set it as `./millrace env` prints it.")
        return found


def undefined(name: str) -> UserError:
    """The error of a connection that is not defined."""
    return UserError(
        f"The Airflow connection {name!r} is not defined.",
        "Run this through ./millrace, or define the connection in Airflow.",
        code=Code.CONNECTION_UNDEFINED,
    )


def invalid(name: str, reason: object, remedy: str) -> UserError:
    """The error of a connection that is defined and cannot be used.

    Args:
        reason: The rest of the sentence, with its full stop.
    """
    return UserError(f"The Airflow connection {name!r} is invalid: {reason}", remedy, code=Code.CONNECTION_INVALID)


_sources: list[Source] = [Environment()]


def use(source: Source) -> None:
    """Replaces the source of this process's connections."""
    _sources[:] = [source]


def kafka() -> dict[str, Any]:
    """The librdkafka settings of ``millrace_kafka``. Raises UserError when it is undefined or names no brokers."""
    return _sources[0].kafka(KAFKA)


def postgres() -> Postgres:
    """The address of the warehouse, ``millrace_postgres``. Raises UserError when it is undefined."""
    return _sources[0].postgres(POSTGRES)
