"""Where Millrace keeps its state: one directory for each platform, `MILLRACE_HOME`."""

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
from typing import Any

from include.errors import UserError
from include.project import ROOT

NEEDED_BYTES = 1024**3

_SECRETS = ("fernet_key", "api_secret", "jwt_secret", "postgres", "airflow", "warehouse", "ui", "supervisor")


@dataclass(frozen=True)
class Home:
    """The directory of one platform, and the paths inside it."""

    path: Path

    @classmethod
    def current(cls) -> "Home":
        """The home that the environment names, else `.millrace` in the checkout."""
        return cls(Path(os.environ.get("MILLRACE_HOME") or ROOT / ".millrace").absolute())

    @property
    def environment(self) -> Path:
        """The Python environment, which several homes of one checkout may share."""
        return Path(os.environ.get("MILLRACE_ENV") or self.path / "env").absolute()

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def kafka(self) -> Path:
        return self.path / "kafka"

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
        """Present while a restore replaces this home's data: names the backup."""
        return self.path / "restore.pending"

    @property
    def staging(self) -> tuple[Path, Path]:
        """Where a backup and a restore put together what they work on; what is there otherwise was interrupted."""
        return self.path / "backup.new", self.path / "restore.new"

    @property
    def passwords(self) -> Path:
        """The users of the UI, in the form of Airflow's SimpleAuthManager."""
        return self.path / "passwords.json"

    @property
    def password(self) -> str:
        """The password of the UI's user admin, as it is now: a person may have changed it."""
        try:
            return str(json.loads(self.passwords.read_text())["admin"])
        except (FileNotFoundError, KeyError):
            return self.secrets["ui"]

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Generated at first use, by name; written with mode 0600."""
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
        """Make the directories, private to the user. Raises UserError when that is impossible."""
        if ":" in str(self.path) or "," in str(self.path):
            raise UserError(
                f"The home {self.path} has a colon or a comma in its path, which the settings of Java and Kafka cannot "
                "express.",
                "Name another place with MILLRACE_HOME.",
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
                f"The disk that holds {self.path} has {free / 1e6:.0f} MB free and the platform needs at least "
                f"{NEEDED_BYTES / 1e6:.0f} MB.",
                "Free some space or name another place with MILLRACE_HOME.",
            )
        if not self.passwords.exists():
            write_private(self.passwords, json.dumps({"admin": self.secrets["ui"]}))

    def require_whole(self) -> None:
        """Raises UserError when a restore was interrupted: this home's data are of two platforms."""
        if self.pending_restore.exists():
            file = self.pending_restore.read_text()
            raise UserError(
                f"A restore of {file} into {self.path} was interrupted.",
                f"Repeat it: ./millrace restore {file} --yes. Or delete everything: ./millrace reset.",
            )

    def clear_staging(self) -> None:
        """Delete what an interrupted backup or restore has left, for a caller that holds the home."""
        for directory in self.staging:
            shutil.rmtree(directory, ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """What the platform remembers between starts: its ports, the migrations done."""
        try:
            return dict(json.loads((self.path / "state.json").read_text()))
        except FileNotFoundError:
            return {}

    def remember(self, **changes: Any) -> None:
        write_private(self.path / "state.json", json.dumps(self.state() | changes, indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


@contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `path` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"The disk that holds {path} is full.", "Free some space and start again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST):
            raise UserError(
                f"{error.filename or path} cannot be written ({error.strerror}).",
                "Make it writable, or name another place with MILLRACE_HOME.",
            ) from error
        raise
