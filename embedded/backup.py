"""Back up a platform while it runs: PostgreSQL first, then Kafka.

The transaction that lands rows also moves the stream's position, so the copy of PostgreSQL must never be ahead of the
copy of Kafka. PostgreSQL is therefore copied first. Records that arrive between the two copies are past the position
and land after a restore. Kafka's logs are copied while the broker is stopped, because a transaction writes to several
logs. Segments that the broker no longer writes to are hard-linked, so that it is stopped for seconds only. The schema
registry is stopped with it: every record in the copy finds its schema, and the database of the registry is at rest.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

from embedded import backup_file, environment, postgres, settings
from embedded.backup_file import Progress, Report, Writer
from embedded.home import Home, explain_disk
from embedded.ports import HOST
from include import provenance
from include.error_codes import Code
from include.errors import UserError
from include.warehouse import migrations

if TYPE_CHECKING:
    from embedded.platform import Platform

POSTGRES, KAFKA, WAREHOUSE = "postgres", "kafka", "warehouse.dump"
REGISTRY = "schema-registry"
FILES = ("secrets.json", "passwords.json")
STATE = "state.json"
# What a restored home takes over from the state. It has not migrated its databases, and runs no code.
KEPT = ("ports", "schema_registry")
OWN_WAREHOUSE = "AIRFLOW_CONN_MILLRACE_POSTGRES"
SCHEMAS = ("millrace", "landing")
_SLOT = "millrace_backup"
# The process that the server was, which a copy must not name.
_PROCESS_FILES = frozenset({"postmaster.pid", "postmaster.opts"})


class Header(TypedDict):
    """The description of a backup, at its beginning.

    Attributes:
        made_at: When it was made, in ISO 8601.
        code: The commit of Millrace that wrote it.
        versions: The versions of Airflow, Kafka and PostgreSQL.
        revisions: The migrations that this release has.
        machine: The kind of machine, see `machine`.
        own_warehouse: Whether it holds a warehouse of the user's own server.
        bytes: The approximate size of the data.
    """

    made_at: str
    code: str
    versions: dict[str, str]
    revisions: list[str]
    machine: str
    own_warehouse: bool
    bytes: int


def make(target: Platform, file: Path, report: Report) -> None:
    """Write a backup of the platform, which may run. An interrupted backup leaves no file of this name.

    Args:
        report: Called with a description of each step.

    Raises:
        UserError: The home holds no data, the disk is full, or a component does not answer.
    """
    home = target.home
    home.require_restored()
    if not (home.postgres / "PG_VERSION").exists():
        raise UserError(
            f"The home {home.path} holds no data to back up.",
            "Start the platform with ./millrace up.",
            code=Code.NOTHING_TO_BACK_UP,
        )
    if file.exists():
        raise UserError(f"The file {file} exists already.", "Name another file, or delete it.", code=Code.FILE_EXISTS)
    if file.absolute().is_relative_to(home.path):
        raise UserError(
            f"The file {file} would be inside the home {home.path}, which ./millrace reset deletes.",
            "Name a file in another directory.",
            code=Code.BACKUP_INSIDE_HOME,
        )
    with target.held(), explain_disk(file.parent):
        home.clear_staging()
        running = target.is_alive()
        if not running:
            target.stop()
        header = _header(home, running)
        try:
            with backup_file.writing(file, header, Progress(report, "writing", header["bytes"])) as writer:
                _add(writer, target, running, report)
        finally:
            home.clear_staging()


def _add(writer: Writer, target: Platform, running: bool, report: Report) -> None:
    home = target.home
    for name in FILES:
        writer.add_bytes(name, (home.path / name).read_bytes())
    state = {"ports": {}, **{name: value for name, value in home.state().items() if name in KEPT}}
    writer.add_bytes(STATE, json.dumps(state).encode())
    if OWN_WAREHOUSE in environment.overrides():
        report("copying your warehouse")
        _add_own_warehouse(writer, home)
    report("copying PostgreSQL")
    if not running:
        writer.add_tree(POSTGRES, home.postgres, leave_out=_PROCESS_FILES)
        report("copying Kafka")
        writer.add_tree(KAFKA, home.kafka)
        if home.schema_registry.exists():
            writer.add_tree(REGISTRY, home.schema_registry)
        return
    _add_running_postgres(writer, home)
    report("stopping Kafka for a few seconds to copy its logs; landing and training wait")
    copied, schemas = _staging(home) / KAFKA, _staging(home) / REGISTRY
    with target.without_kafka():
        _copy_logs(home.kafka, copied)
        if home.schema_registry.exists():
            shutil.copytree(home.schema_registry, schemas)
    report("Kafka is running again; writing the copied logs")
    writer.add_tree(KAFKA, copied)
    if schemas.exists():
        writer.add_tree(REGISTRY, schemas)


def versions() -> dict[str, str]:
    """The versions that this release of Millrace runs on, by name."""
    return {
        "airflow": settings.AIRFLOW_VERSION,
        "kafka": settings.KAFKA_VERSION,
        "postgres": settings.POSTGRES_VERSION,
    }


def revisions() -> list[str]:
    """The migrations of the warehouse's schema in this release, those of older histories included."""
    return sorted({*migrations.revisions(), *migrations.FORMER})


def machine() -> str:
    """The kind of machine. PostgreSQL reads its files only on the kind that wrote them."""
    return f"{platform.machine()} {sys.byteorder}-endian"


def program_environment(parameters: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a program of PostgreSQL connects. In arguments every user would see the password."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | dict(parameters)


def _header(home: Home, running: bool) -> Header:
    # A running server sends only the part of the write-ahead log that the copy needs.
    wal = _size(home.postgres / "pg_wal") if running else 0
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": provenance.code_version(),
        "versions": versions(),
        "revisions": revisions(),
        "machine": machine(),
        "own_warehouse": OWN_WAREHOUSE in environment.overrides(),
        "bytes": _size(home.postgres) - wal + _size(home.kafka) + _size(home.schema_registry),
    }


def _size(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            with suppress(FileNotFoundError):
                # The allocated blocks: an index file of Kafka has a size of ten megabytes and is mostly a hole.
                total += 512 * os.lstat(os.path.join(parent, name)).st_blocks
    return total


def _staging(home: Home) -> Path:
    directory = home.staging[0]
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _add_running_postgres(writer: Writer, home: Home) -> None:
    """Add a base backup: both databases, the roles, and the write-ahead log that makes them consistent."""
    port = home.state()["ports"]["postgres"]
    postgres.check(home, port)
    with closing(postgres.connect(home, port)) as connection, connection.cursor() as cursor:
        # The slot keeps the write-ahead log that is written during the backup until its end.
        cursor.execute("SELECT pg_create_physical_replication_slot(%s, true, true)", (_SLOT,))
        options = ["--format=tar", "--pgdata=-", "--wal-method=fetch", "--checkpoint=fast", "--no-manifest"]
        parameters = {
            "PGHOST": HOST,
            "PGPORT": str(port),
            "PGUSER": postgres.SUPERUSER,
            "PGPASSWORD": home.secrets["postgres"],
        }
        with _output_of(["pg_basebackup", *options], parameters, "PostgreSQL could not be copied") as output:
            writer.add_archive(POSTGRES, output)


def _add_own_warehouse(writer: Writer, home: Home) -> None:
    options = ["--format=custom", "--no-owner", "--no-privileges", *(f"--schema={name}" for name in SCHEMAS)]
    dumped = _staging(home) / WAREHOUSE
    command = ["pg_dump", *options, f"--file={dumped}"]
    with _output_of(command, postgres.own_warehouse(home), "Your warehouse could not be copied"):
        pass
    writer.add_file(WAREHOUSE, dumped)


@contextmanager
def _output_of(command: list[str], parameters: Mapping[str, str], failed: str) -> Iterator[IO[bytes]]:
    """The output of a program of PostgreSQL. Raises UserError with its last message when it fails."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [postgres.program(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=program_environment(parameters),
        )
        assert process.stdout
        broken: Exception | None = None
        try:
            yield process.stdout
        except Exception as error:
            # When the program has failed, its output ends early: the program's own message is the cause.
            broken = error
        finally:
            process.stdout.close()
            code = process.wait()
        if code and not isinstance(broken, OSError):
            errors.seek(0)
            raise UserError(
                f"{failed}: {last_line(errors.read().decode(errors='replace'))}.",
                "Fix this; ./millrace doctor checks the platform.",
                code=Code.BACKUP_FAILED,
            )
        if broken:
            raise broken


def last_line(text: str) -> str:
    """The last line that is not empty, without the prefix of PostgreSQL's programs."""
    lines = [re.sub(r"^pg_\w+: (error|detail|hint): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"


def _copy_logs(kafka: Path, copied: Path) -> None:
    """Copy the logs of a stopped broker, and hard-link the segments that it will not write to again."""
    for directory, _, names in os.walk(kafka):
        target = copied / Path(directory).relative_to(kafka)
        target.mkdir(mode=0o700)
        newest = max((name for name in names if name.endswith(".log")), default="")
        for name in names:
            source = Path(directory, name)
            is_closed = name.endswith(".log") and name != newest
            if not (is_closed and _link(source, target / name)):
                shutil.copyfile(source, target / name)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
