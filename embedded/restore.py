"""Restore a backup: unpack it next to the existing data of the home, then move it into their place.

Nothing is changed until the whole backup is checked and unpacked. Then a marker is written, so that `up` refuses a home
whose restore was killed until a restore has finished.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

from embedded import backup, backup_file, environment, postgres
from embedded.backup import Header
from embedded.backup_file import Progress, Report
from embedded.home import Home, explain_disk, write_private
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    from embedded.platform import Platform


def check(file: Path, report: Report) -> Header:
    """Check that a backup is complete and unaltered and that this release can restore it, and return its header.

    Raises:
        UserError: It is not, or cannot be restored here.
    """
    backup_file.check(file, report)
    header = cast(Header, backup_file.read_header(file))
    unknown = sorted(set(header["revisions"]) - set(backup.revisions()))
    newer = [
        f"{name} {version}"
        for name, version in header["versions"].items()
        if _number(version) > _number(backup.versions()[name])
    ]
    if unknown or newer:
        what = ", ".join([*newer, *(f"the schema revision {revision}" for revision in unknown)])
        raise UserError(
            f"The backup {file} was written by a newer release of Millrace, which has {what}.",
            f"Update this checkout; the backup was written by {header['code']}.",
            code=Code.BACKUP_INCOMPATIBLE,
        )
    theirs, ours = header["versions"]["postgres"], backup.versions()["postgres"]
    if _number(theirs)[0] != _number(ours)[0]:
        raise UserError(
            f"The backup {file} holds data of PostgreSQL {theirs}, which PostgreSQL {ours} cannot read.",
            f"Restore it with the release of Millrace that wrote it, {header['code']}.",
            code=Code.BACKUP_INCOMPATIBLE,
        )
    if header["machine"] != backup.machine():
        raise UserError(
            f"The backup {file} was written on {header['machine']}, and this machine is {backup.machine()}.",
            "Restore it on a machine of the same kind.",
            code=Code.BACKUP_INCOMPATIBLE,
        )
    if header["own_warehouse"] and backup.OWN_WAREHOUSE not in environment.overrides():
        raise UserError(
            f"The backup {file} holds the warehouse of your own server, and MILLRACE_CONN_POSTGRES is not set.",
            "Set MILLRACE_CONN_POSTGRES to an empty database.",
            code=Code.BACKUP_NEEDS_WAREHOUSE,
        )
    return header


def make(platform: Platform, file: Path, header: Header, report: Report) -> None:
    """Replace the data of the platform's home by a checked backup, and leave the platform stopped.

    Raises:
        UserError: The disk is full, or the user's server does not take the warehouse. No data was changed.
    """
    home = platform.home
    with explain_disk(home.path):
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with platform.held(), explain_disk(home.path):
        home.clear_staging()
        _require_space(home, header["bytes"])
        unpacked = home.staging[1]
        unpacked.mkdir(mode=0o700)
        try:
            report("unpacking the backup")
            backup_file.unpack(file, unpacked, Progress(report, "unpacking", header["bytes"]))
            postgres.hand_over(unpacked / backup.POSTGRES)
            platform.stop()
        except BaseException:
            home.clear_staging()
            raise
        interrupted = home.pending_restore.exists()
        write_private(home.pending_restore, str(file.absolute()))
        if header["own_warehouse"]:
            report("restoring your warehouse")
            try:
                _restore_own_warehouse(home, unpacked / backup.WAREHOUSE)
            except UserError:
                home.clear_staging()
                if not interrupted:
                    home.pending_restore.unlink()
                raise
        report("moving the data into place")
        _put_in_place(home, unpacked)


def holds_data(home: Home) -> bool:
    """Whether a restore into this home would replace something."""
    return home.postgres.exists() or home.kafka.exists() or home.pending_restore.exists()


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _require_space(home: Home, needed: int) -> None:
    if (free := shutil.disk_usage(home.path).free) < needed:
        raise UserError(
            f"The disk that holds {home.path} has {free / 1e6:,.0f} MB free, and the backup unpacks to about "
            f"{needed / 1e6:,.0f} MB next to the existing data.",
            "Free some space, or delete the existing data with ./millrace reset.",
            code=Code.DISK_FULL,
        )


def _restore_own_warehouse(home: Home, dumped: Path) -> None:
    """Replace Millrace's schemas in the user's database, in one transaction."""
    parameters = backup.program_environment(postgres.own_warehouse(home))
    script = dumped.with_suffix(".sql")
    with script.open("w") as file:
        file.writelines(f"DROP SCHEMA IF EXISTS {name} CASCADE;\n" for name in backup.SCHEMAS)
    written = dumped.with_suffix(".data.sql")
    steps = (
        ["pg_restore", "--no-owner", "--no-privileges", f"--file={written}", str(dumped)],
        ["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-f", str(script), "-f", str(written)],
    )
    for command in steps:
        program = [postgres.program(command[0]), *command[1:]]
        done = subprocess.run(program, env=parameters, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"Your warehouse could not be restored: {backup.last_line(done.stderr)}. No data was changed.",
                "Fix this, and repeat the restore.",
                code=Code.RESTORE_FAILED,
            )


def _put_in_place(home: Home, unpacked: Path) -> None:
    # Without a schema registry in the backup, the one of this home keeps its schemas: older backups have none.
    for name in (backup.POSTGRES, backup.KAFKA, backup.REGISTRY):
        if (unpacked / name).exists():
            shutil.rmtree(home.path / name, ignore_errors=True)
            (unpacked / name).rename(home.path / name)
    for name in (*backup.FILES, backup.STATE):
        (unpacked / name).replace(home.path / name)
    home.pending_restore.unlink()
    home.clear_staging()
