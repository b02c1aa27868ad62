"""The home: the directory of one platform's data, logs and secrets, `MILLRACE_HOME`."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack, cast

from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT

NEEDED_BYTES = 1024**3

_SECRETS = ("fernet_key", "api_secret", "jwt_secret", "postgres", "airflow", "warehouse", "ui", "supervisor", "mask")


class State(TypedDict, total=False):
    """What the platform stores between starts.

    Attributes:
        ports: The port of each listener.
        migrated: The fingerprint of the code that last migrated the databases.
        generation: The fingerprint of the code that the platform runs; None while it starts.
        schema_registry: Whether the platform has a schema registry.
    """

    ports: dict[str, int]
    migrated: str
    generation: str | None
    schema_registry: bool


@dataclass(frozen=True)
class Home:
    """The directory of one platform, and the paths inside it."""

    path: Path

    @classmethod
    def current(cls) -> "Home":
        """The home that `MILLRACE_HOME` names, else `.millrace` in the checkout."""
        return cls(Path(os.environ.get("MILLRACE_HOME") or ROOT / ".millrace").absolute())

    @property
    def environment(self) -> Path:
        """The Python environment, which several homes of one checkout can share."""
        return Path(os.environ.get("MILLRACE_ENV") or self.path / "env").absolute()

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def kafka(self) -> Path:
        return self.path / "kafka"

    @property
    def schema_registry(self) -> Path:
        return self.path / "schema-registry"

    @property
    def airflow(self) -> Path:
        return self.path / "airflow"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def pending_restore(self) -> Path:
        """Exists while a restore replaces the data of this home, and holds the path of the backup."""
        return self.path / "restore.pending"

    @property
    def staging(self) -> tuple[Path, Path]:
        """The directories of a running backup and a running restore. An interrupted one leaves them behind."""
        return self.path / "backup.new", self.path / "restore.new"

    @property
    def passwords(self) -> Path:
        """The users of the UI, as Airflow's SimpleAuthManager reads them."""
        return self.path / "passwords.json"

    @property
    def password(self) -> str:
        """The current password of the UI's user admin, which a user may have changed."""
        try:
            return str(json.loads(self.passwords.read_text())["admin"])
        except (FileNotFoundError, KeyError):
            return self.secrets["ui"]

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Passwords and keys by name, generated at first use and stored with mode 0600."""
        path = self.path / "secrets.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        missing = [name for name in _SECRETS if name not in known]
        if missing:
            import base64

            known |= {name: secrets.token_urlsafe(24) for name in missing}
            if "fernet_key" in missing:
                known["fernet_key"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            write_private(path, json.dumps(known, indent=2))
        return known

    def prepare(self) -> None:
        """Create the directories, accessible to the user only. Raises UserError when that is impossible."""
        if ":" in str(self.path) or "," in str(self.path):
            raise UserError(
                f"The path of the home, {self.path}, has a colon or a comma, which settings of Java and Kafka cannot "
                "express.",
                "Choose another directory with MILLRACE_HOME.",
                code=Code.INVALID_HOME_PATH,
            )
        with explain_disk(self.path):
            for directory in (self.path, self.airflow, self.logs, self.run, self.kafka):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.path, self.airflow, self.logs, self.run):
                directory.chmod(0o700)
            (self.run / "probe").write_bytes(b"\0" * 4096)
        free = shutil.disk_usage(self.path).free
        if free < NEEDED_BYTES:
            raise UserError(
                f"The disk that holds {self.path} has {free / 1e6:.0f} MB free, and the platform needs at least "
                f"{NEEDED_BYTES / 1e6:.0f} MB.",
                "Free some space, or choose another directory with MILLRACE_HOME.",
                code=Code.DISK_FULL,
            )
        if not self.passwords.exists():
            write_private(self.passwords, json.dumps({"admin": self.secrets["ui"]}))

    def require_restored(self) -> None:
        """Raises UserError when a restore was interrupted: the home then holds data of two platforms."""
        if self.pending_restore.exists():
            file = self.pending_restore.read_text()
            raise UserError(
                f"A restore of {file} into {self.path} was interrupted.",
                f"Repeat it: ./millrace restore {file} --yes. Or delete everything: ./millrace reset.",
                code=Code.RESTORE_INTERRUPTED,
            )

    def clear_staging(self) -> None:
        """Delete what an interrupted backup or restore left. The caller must hold the home's lock."""
        for directory in self.staging:
            shutil.rmtree(directory, ignore_errors=True)

    def state(self) -> State:
        """The stored state; empty before the first start."""
        try:
            return cast(State, json.loads((self.path / "state.json").read_text()))
        except FileNotFoundError:
            return {}

    def update_state(self, **changes: Unpack[State]) -> None:
        """Change these entries of the stored state."""
        write_private(self.path / "state.json", json.dumps(self.state() | changes, indent=2))


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


@contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Raise UserError when the operating system cannot write below `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk that holds {path} is full.",
                "Free some space, and run the command again.",
                code=Code.DISK_FULL,
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
            raise UserError(
                f"{error.filename or path} cannot be written ({error.strerror}).",
                "Make it writable, or choose another directory with MILLRACE_HOME.",
                code=Code.PATH_NOT_WRITABLE,
            ) from error
        raise
