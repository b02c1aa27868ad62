"""When `up` adds a schema registry to the platform."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedded import schema_registry
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError
from include.streams import definitions
from include.streams.definition import Stream

JSON = definitions.get("payments")
AVRO = replace(JSON, name="positions", format="avro")


def add(path: Path, monkeypatch: pytest.MonkeyPatch, *streams: Stream) -> tuple[bool, list[str]]:
    """Whether the platform in a home has a registry after `up`, and what was reported."""
    reported: list[str] = []
    monkeypatch.setattr(definitions, "find", lambda: SimpleNamespace(valid={each.name: each for each in streams}))
    platform = Platform(path, reported.append)
    platform.home.prepare()
    platform._add_needed_registry()
    return "schema-registry" in platform.names, reported


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "install", lambda environment: None)
    monkeypatch.delenv("MILLRACE_CONN_REGISTRY", raising=False)


def test_a_stream_that_needs_it_adds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(tmp_path, monkeypatch, JSON) == (False, [])
    added = (True, ["adding a schema registry to the platform, for the stream positions"])
    assert add(tmp_path, monkeypatch, JSON, AVRO) == added
    # It stays, and is not reported again.
    assert add(tmp_path, monkeypatch, JSON) == (True, [])


def test_a_registry_elsewhere_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(tmp_path, monkeypatch, replace(AVRO, registry="company")) == (False, [])
    monkeypatch.setenv("MILLRACE_CONN_REGISTRY", "{}")
    assert add(tmp_path, monkeypatch, AVRO) == (False, [])


def test_the_users_decision_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Platform(tmp_path).use_schema_registry(False)
    assert add(tmp_path, monkeypatch, AVRO) == (False, [])


def test_without_a_network_the_platform_starts_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(environment: Path) -> None:
        raise UserError("No network.", "Connect.", code=Code.DOWNLOAD_FAILED)

    monkeypatch.setattr(schema_registry, "install", fail)
    has_registry, (_, problem) = add(tmp_path, monkeypatch, AVRO)
    assert not has_registry and "the stream positions will wait: No network." in problem
    monkeypatch.setattr(schema_registry, "install", lambda environment: None)
    assert add(tmp_path, monkeypatch, AVRO)[0]
