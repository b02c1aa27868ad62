"""The connections to servers: from the environment, or from Airflow inside its processes."""

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


@dataclass(frozen=True)
class Registry:
    """The address of a schema registry and how to log in.

    Attributes:
        url: The address of its API, such as ``https://registry.example:8081/apis/ccompat/v7``.
        login, password: For HTTP basic authentication; None for none.
        token: For a bearer token; None for none.
        ca: The file of the certificates that its certificate is checked with; None for those of the system.
        cert, key: The files of this client's certificate and key; None for none.
    """

    url: str
    login: str | None = None
    password: str | None = None
    token: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class Source(Protocol):
    """Where connections come from. Each method raises UserError when the connection is undefined or invalid."""

    def kafka(self, name: str) -> dict[str, Any]:
        """The librdkafka settings of a connection."""

    def postgres(self, name: str) -> Postgres:
        """The address and login of a connection."""

    def registry(self, name: str) -> Registry:
        """The address and login of a connection to a schema registry."""

    def secret(self, name: str) -> bytes:
        """The password of a connection, as a secret."""


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

    def registry(self, name: str) -> Registry:
        """See ``Source``."""
        found = self._read(name)
        extra = found.get("extra") or {}
        return registry_of(name, found | {"extra": json.loads(extra) if isinstance(extra, str) else extra})

    def secret(self, name: str) -> bytes:
        """See ``Source``."""
        return secret_of(name, self._read(name).get("password"))

    @staticmethod
    def _read(name: str) -> dict[str, Any]:
        variable = f"AIRFLOW_CONN_{name.upper()}"
        text = os.environ.get(variable, "").strip()
        if not text:
            raise undefined(name)
        if "://" in text and not text.startswith("{"):
            url = urlsplit(text)
            return {
                "conn_type": url.scheme,
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


def registry_of(name: str, found: Mapping[str, Any]) -> Registry:
    """The connection to a schema registry from the fields of Airflow's HTTP connection.

    Args:
        found: ``host``, which may be a whole URL, ``port``, ``schema`` (``http`` or ``https``), ``login``, ``password``
            and ``extra`` with ``token``, ``path``, ``ca``, ``cert`` and ``key``.

    Raises:
        UserError: It has no host.
    """
    host, extra = str(found.get("host") or ""), found.get("extra") or {}
    if not host:
        raise invalid(name, "it has no host.", 'Set the registry\'s address as its host, such as "https://host:8081".')
    if "://" not in host:
        schemes = [found.get("schema"), found.get("conn_type")]
        scheme = next((each for each in schemes if each in ("http", "https")), "http")
        host = f"{scheme}://{host}"
    parts = urlsplit(host)
    if found.get("port") and parts.port is None:
        host = parts._replace(netloc=f"{parts.netloc}:{found['port']}").geturl()
    return Registry(
        url=host.rstrip("/") + str(extra.get("path") or "").rstrip("/"),
        login=found.get("login") or None,
        password=found.get("password") or None,
        **{field: extra.get(field) or None for field in ("token", "ca", "cert", "key")},
    )


def secret_of(name: str, password: object) -> bytes:
    """The secret that the password of a connection is. Raises UserError if it is empty."""
    if not password:
        raise invalid(name, "it has no password, which is the secret.", "Set a long random text as its password.")
    return str(password).encode()


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


def registry(name: str) -> Registry:
    """The address of a schema registry. Raises UserError when the connection is undefined or has no host."""
    return _sources[0].registry(name)


def secret(name: str) -> bytes:
    """The secret that is the password of a connection. Raises UserError when it is undefined or has no password."""
    return _sources[0].secret(name)
