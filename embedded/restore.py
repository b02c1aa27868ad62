"""How a backup becomes the state of a home: unpacked next to the existing state, then moved into its place.

Nothing is touched until the whole backup is checked and unpacked. From then on the home is marked: a restore that is
killed leaves a home that `up` refuses until a restore has come to its end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedded import backup, backup_file, environment, postgres
from embedded.backup_file import Progress, Report
from embedded.home import Home, explain_disk, write_private
from include.errors import UserError

if TYPE_CHECKING:
    from embedded.platform import Platform


def check(file: Path, report: Report) -> dict[str, Any]:
    """What a backup says of itself, once it is known to be complete, unaltered, and of use to this Millrace.

    Raises:
        UserError: It is not.
    """
    backup_file.check(file, report)
    header = backup_file.read_header(file)
    unknown = sorted(set(header["revisions"]) - set(backup.revisions()))
    newer = [
        f"{name} {version}"
        for name, version in header["versions"].items()
        if _number(version) > _number(backup.versions()[name])
    ]
    if unknown or newer:
        what = ", ".join([*newer, *(f"the schema's revision {revision}" for revision in unknown)])
        raise UserError(
            f"{file} was written by a newer Millrace, which has {what}.",
            f"Update this checkout; the backup is of {header['code']}.",
        )
    theirs, ours = header["versions"]["postgres"], backup.versions()["postgres"]
    if _number(theirs)[0] != _number(ours)[0]:
        raise UserError(
            f"{file} holds data of PostgreSQL {theirs}, which PostgreSQL {ours} cannot read.",
            f"Restore it with the release of Millrace that wrote it, {header['code']}.",
        )
    if header["machine"] != backup.machine():
        raise UserError(
            f"{file} was written on another kind of machine: {header['machine']}, this is {backup.machine()}.",
            "Restore it on a machine of its own kind.",
        )
    if header["own_warehouse"] and backup.OWN_WAREHOUSE not in environment.overrides():
        raise UserError(
            f"{file} holds a warehouse on a server of your own, and MILLRACE_CONN_POSTGRES is not set.",
            "Set it to an empty database.",
        )
    return header


def make(platform: Platform, file: Path, header: dict[str, Any], report: Report) -> None:
    """Replaces the data of the platform's home by a checked backup, and leaves the platform stopped.

    Raises:
        UserError: The disk is full; nothing was touched then.
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
            if header["own_warehouse"]:
                report("restoring your warehouse")
                _restore_own_warehouse(home, unpacked / backup.WAREHOUSE)
        except BaseException:
            home.clear_staging()
            raise
        report("putting it in place")
        write_private(home.pending_restore, str(file.absolute()))
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
            f"{needed / 1e6:,.0f} MB in addition to what is there.",
            "Free some space, or delete what is there with ./millrace reset.",
        )


def _restore_own_warehouse(home: Home, dumped: Path) -> None:
    """Replaces Millrace's schemas in the user's database, in one transaction."""
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
                f"Your warehouse could not be restored: {backup.last_line(done.stderr)}.", "Nothing was changed."
            )


def _put_in_place(home: Home, unpacked: Path) -> None:
    for name in (backup.POSTGRES, backup.KAFKA):
        if (unpacked / name).exists():
            shutil.rmtree(home.path / name, ignore_errors=True)
            (unpacked / name).rename(home.path / name)
    for name in (*backup.FILES, backup.STATE):
        (unpacked / name).replace(home.path / name)
    home.pending_restore.unlink()
    home.clear_staging()
