"""The client of a schema registry with Confluent's API, such as Confluent's, Apicurio's, Karapace or Redpanda's."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from include import connections
from include.error_codes import Code
from include.errors import UserError
from include.schemas.framing import SchemaKey
from include.schemas.schema import Schema, shown

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0
OF_PLATFORM = {"millrace_registry": " with ./millrace up --registry"}
"""How the registry that is part of the platform is started, by the name of its connection."""
MAX_REFERENCES = 1_000
"""The most schemas that one schema may refer to, directly or not."""
MAX_SUBJECTS = 3
"""How many subjects of a schema a message names."""
_NOT_FOUND = 404
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
# A gateway in front of the registry, too many requests, or a request that took too long.
_TRANSIENT = frozenset({408, 425, 429})


class RegistryUnavailable(UserError):
    """The registry does not answer now. Waiting may help."""


class _PathMissing(RegistryUnavailable):
    """A server answers 404, and does not answer like a registry: the registry lacks this path, or it is elsewhere."""


class SchemaMissing(Exception):
    """The registry answers that it does not have a schema."""


class SchemaRegistry:
    """A schema registry. It opens its connection with the first request, and caches nothing.

    Args:
        name: The name of the Airflow connection.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._client: httpx.Client | None = None

    def __enter__(self) -> SchemaRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def schema(self, key: SchemaKey) -> Schema:
        """The schema with this id or GUID, with everything that it refers to.

        Raises:
            SchemaMissing: The registry does not have it.
            RegistryUnavailable: The registry does not answer.
            UserError: The registry refuses the request.
        """
        found = self._by_guid(key) if isinstance(key, UUID) else self._get(f"/schemas/ids/{key}")
        return self._assembled(found, ())

    def subjects(self, key: SchemaKey) -> tuple[str, ...]:
        """The first subjects that have a schema, with the version, for messages; empty if the registry does not say."""
        if isinstance(key, UUID):
            return ()
        try:
            found = self._get(f"/schemas/ids/{key}/versions")
            return tuple(f"{each['subject']} version {each['version']}" for each in found[:MAX_SUBJECTS])
        except (SchemaMissing, UserError, LookupError, TypeError):
            return ()

    def versions(self, subject: str) -> dict[int, tuple[int, Schema]]:
        """Every version of a subject, with its schema id and schema; empty if there is no such subject.

        Raises:
            RegistryUnavailable: The registry does not answer.
            UserError: The registry refuses the request.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        try:
            numbers = self._get(path)
        except SchemaMissing:
            return {}
        found = {number: self._get(f"{path}/{number}") for number in sorted(numbers)}
        return {
            number: (int(each["id"]), self._assembled(each, (f"{subject} version {number}",)))
            for number, each in found.items()
        }

    def register(self, subject: str, kind: str, text: str) -> int:
        """Registers a schema for a subject, unless it is registered. Returns its id.

        Raises:
            RegistryUnavailable: The registry does not answer.
            UserError: The registry refuses the schema, for example because it is not compatible with the last one.
        """
        body = {"schemaType": kind, "schema": text}
        found = self._request("POST", f"/subjects/{quote(subject, safe='')}/versions", body)
        return int(found["id"])

    def _by_guid(self, guid: UUID) -> Any:
        try:
            return self._get(f"/schemas/guids/{guid}")
        except _PathMissing as error:
            # Raises RegistryUnavailable if the registry is elsewhere.
            self._get("/schemas/types")
            raise UserError(
                f"The schema registry of connection {self.name!r} does not find schemas by GUID, and a record names "
                f"the GUID {guid}.",
                "Use a registry that has /schemas/guids, or let the producer write schema ids.",
                code=Code.REGISTRY_REFUSED,
            ) from error

    def _assembled(self, found: Mapping[str, Any], subjects: tuple[str, ...]) -> Schema:
        references: dict[str, str] = {}
        self._collect(found.get("references") or [], references, frozenset())
        return Schema(found.get("schemaType") or "AVRO", found["schema"], references, subjects)

    def _collect(self, named: list[Mapping[str, Any]], found: dict[str, str], parents: frozenset[str]) -> None:
        """Adds the schemas that are referred to, those that they refer to first."""
        for reference in named:
            name = reference["name"]
            if name in found or name in parents or len(found) >= MAX_REFERENCES:
                continue
            subject = quote(reference["subject"], safe="")
            answer = self._get(f"/subjects/{subject}/versions/{reference['version']}")
            self._collect(answer.get("references") or [], found, parents | {name})
            found[name] = answer["schema"]

    def _get(self, path: str) -> Any:
        return self._request("GET", path)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        import httpx

        if self._client is None:
            self._client = _client(self.name)
        url = f"{self._client.base_url}".rstrip("/") + path
        try:
            answer = self._client.request(method, url, json=body)
        except (httpx.HTTPError, OSError) as error:
            self.close()
            raise self._unavailable(f"does not answer at {url}: {str(error) or type(error).__name__}") from error
        status = answer.status_code
        if status == _NOT_FOUND and _is_json(answer):
            raise SchemaMissing(path)
        if status >= 500 or status in _TRANSIENT or status == _NOT_FOUND:
            kind = _PathMissing if status == _NOT_FOUND else RegistryUnavailable
            raise self._unavailable(f"answers {status} at {url}: {_reason(answer)}", kind)
        if status >= 300:
            raise UserError(
                f"The schema registry of connection {self.name!r} refuses a request, {status} at {url}: "
                f"{_reason(answer)}.",
                f"Correct the login of the connection {self.name!r}, or what the answer names.",
                code=Code.REGISTRY_REFUSED,
            )
        try:
            return answer.json()
        except ValueError as error:
            raise self._unavailable(f"does not answer with JSON at {url}") from error

    def _unavailable(self, what: str, kind: type[RegistryUnavailable] = RegistryUnavailable) -> RegistryUnavailable:
        return kind(
            f"The schema registry of connection {self.name!r} {what.rstrip('.')}.",
            f"Start it{OF_PLATFORM.get(self.name, '')}, or correct the connection {self.name!r}.",
            code=Code.REGISTRY_UNAVAILABLE,
        )


def missing(key: SchemaKey, registry: str) -> str:
    """The reason why a record cannot be decoded if the registry does not have its schema."""
    return f"the schema registry of connection {registry!r} does not have {shown(key)}"


def _client(name: str) -> httpx.Client:
    import httpx

    found = connections.registry(name)
    headers = {"Accept": f"{_CONTENT_TYPE}, application/json"}
    if found.token:
        headers["Authorization"] = f"Bearer {found.token}"
    auth = httpx.BasicAuth(found.login, found.password or "") if found.login and not found.token else None
    return httpx.Client(base_url=found.url, headers=headers, auth=auth, timeout=TIMEOUT_S, verify=_tls(name, found))


def _tls(name: str, found: connections.Registry) -> ssl.SSLContext | bool:
    """The TLS settings of a connection. Raises UserError for a file that cannot be read."""
    if not found.url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=found.ca)
        if found.cert:
            context.load_cert_chain(found.cert, found.key)
    except OSError as error:  # also ssl.SSLError
        files = ", ".join(filter(None, (found.ca, found.cert, found.key)))
        raise connections.invalid(
            name, f"the certificates in {files} cannot be read: {error}.", "Correct ca, cert and key in its extra."
        ) from error
    return context


def _is_json(answer: httpx.Response) -> bool:
    """Whether the registry has answered, and not a web server at a wrong address."""
    return "json" in answer.headers.get("content-type", "") and "error_code" in answer.text


def _reason(answer: httpx.Response) -> str:
    try:
        found = answer.json()
        return str(found.get("message") or found.get("title") or found)[:300].rstrip(".")
    except (ValueError, AttributeError):
        return (answer.text[:100].strip() or answer.reason_phrase).rstrip(".")
