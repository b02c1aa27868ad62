"""The client of a schema registry: logins, TLS, and what its answers mean."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from include.connections import registry_of
from include.error_codes import Code
from include.errors import UserError
from include.schemas.registry import RegistryUnavailable, SchemaMissing, SchemaRegistry

SCHEMA = {"schema": '"string"', "schemaType": "AVRO"}


class Server:
    """A registry that answers what a test sets."""

    def __init__(self) -> None:
        self.status, self.body, self.kind = 200, json.dumps(SCHEMA), "application/json"
        self.requests: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, dict(self.headers)))
                self.send_response(server.status)
                self.send_header("Content-Type", server.kind)
                self.end_headers()
                self.wfile.write(server.body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.http.server_port


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SchemaRegistry]:
    """Makes a client of a connection with these fields."""

    def make(**fields: Any) -> SchemaRegistry:
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "http", **fields}))
        return SchemaRegistry("mine")

    return make


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "h"}, "http://h"),
        ({"host": "h", "port": 8081}, "http://h:8081"),
        ({"host": "h", "port": 8081, "schema": "https"}, "https://h:8081"),
        ({"host": "h", "conn_type": "https"}, "https://h"),
        ({"host": "https://h:1/path/"}, "https://h:1/path"),
        ({"host": "http://h", "port": 5, "extra": {"path": "/apis/ccompat/v7"}}, "http://h:5/apis/ccompat/v7"),
    ],
)
def test_the_address_of_a_connection(fields: dict[str, Any], url: str) -> None:
    assert registry_of("mine", fields).url == url


def test_a_connection_without_a_host_is_an_error() -> None:
    with pytest.raises(UserError) as invalid:
        registry_of("mine", {"extra": {}})
    assert invalid.value.code is Code.CONNECTION_INVALID


def test_logins(server: Server, connect: Callable[..., SchemaRegistry]) -> None:
    logins: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"login": "me", "password": "pass"}, "Basic " + base64.b64encode(b"me:pass").decode()),
        ({"extra": {"token": "abc"}}, "Bearer abc"),
    ]
    for fields, expected in logins:
        with connect(host="127.0.0.1", port=server.port, **fields) as registry:
            assert registry.schema(7).text == '"string"'
        path, headers = server.requests[-1]
        assert path == "/schemas/ids/7"
        assert {name.lower(): value for name, value in headers.items()}.get("authorization") == expected


def test_tls_uses_the_connection_s_certificates(
    server: Server, connect: Callable[..., SchemaRegistry], tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    # The registry asks for the client's certificate.
    context.verify_mode = ssl.CERT_REQUIRED
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    address = f"https://localhost:{server.port}"
    with connect(host=address, extra={"ca": certificate, "cert": certificate, "key": key}) as registry:
        assert registry.schema(7).text == '"string"'
    for extra in ({}, {"ca": certificate}):
        with connect(host=address, extra=extra) as registry, pytest.raises(RegistryUnavailable):
            registry.schema(7)
    with connect(host=address, extra={"ca": str(tmp_path / "missing")}) as registry:
        with pytest.raises(UserError) as invalid:
            registry.schema(7)
        assert invalid.value.code is Code.CONNECTION_INVALID


@pytest.mark.parametrize(
    ("status", "body", "kind", "error", "code"),
    [
        (404, '{"error_code": 40403, "message": "no"}', "application/json", SchemaMissing, None),
        # A wrong address, or a gateway that has no registry behind it.
        (404, "<html>", "text/html", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (404, '{"detail": "no route"}', "application/json", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (500, "", "text/plain", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (503, "{}", "application/json", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (429, "{}", "application/json", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (200, "<html>", "text/html", RegistryUnavailable, Code.REGISTRY_UNAVAILABLE),
        (401, '{"message": "who are you?"}', "application/json", UserError, Code.REGISTRY_REFUSED),
        (403, "", "text/plain", UserError, Code.REGISTRY_REFUSED),
    ],
)
def test_what_an_answer_means(
    server: Server,
    connect: Callable[..., SchemaRegistry],
    status: int,
    body: str,
    kind: str,
    error: type[Exception],
    code: Code | None,
) -> None:
    server.status, server.body, server.kind = status, body, kind
    with connect(host="127.0.0.1", port=server.port) as registry, pytest.raises(error) as raised:
        registry.schema(7)
    assert getattr(raised.value, "code", None) is code
    # A later answer is not affected.
    server.status, server.body, server.kind = 200, json.dumps(SCHEMA), "application/json"
    with registry:
        assert registry.schema(7).kind == "AVRO"


def test_a_registry_that_does_not_listen_is_unavailable(connect: Callable[..., SchemaRegistry]) -> None:
    with connect(host="127.0.0.1", port=9) as registry, pytest.raises(RegistryUnavailable, match="'mine' does not ans"):
        registry.schema(7)


def test_a_guid_that_no_server_knows_is_no_answer_of_a_registry(
    server: Server, connect: Callable[..., SchemaRegistry]
) -> None:
    """As in a registry without GUIDs, but every path is missing: the address is wrong, or a gateway answers."""
    server.status, server.body, server.kind = 404, "<html>", "text/html"
    with connect(host="127.0.0.1", port=server.port) as registry, pytest.raises(RegistryUnavailable):
        registry.schema(UUID(int=1))
    assert [path for path, _ in server.requests] == [f"/schemas/guids/{UUID(int=1)}", "/schemas/types"]


def _certificate(directory: Path) -> tuple[str, str]:
    """The files of a certificate for localhost, which is its own authority, and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(files[0]), str(files[1])
