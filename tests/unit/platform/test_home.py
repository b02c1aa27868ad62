"""The home: what it creates, and its errors."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from embedded.home import Home, explain_disk, write_private
from include.error_codes import Code
from tests.errors import raises


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    first = home.secrets
    assert Home(home.path).secrets == first
    assert stat.S_IMODE((home.path / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_secret_that_a_new_version_needs_is_added(tmp_path: Path) -> None:
    write_private(tmp_path / "secrets.json", '{"ui": "kept"}')
    secrets = Home(tmp_path).secrets
    assert secrets["ui"] == "kept"
    assert secrets["jwt_secret"]


def test_state_survives(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.state() == {}
    home.update_state(ports={"kafka": 1})
    home.update_state(generation="a")
    assert home.state() == {"ports": {"kafka": 1}, "generation": "a"}


@pytest.mark.parametrize("name", ["with:colon", "with,comma"])
def test_a_path_that_java_cannot_express_is_rejected(tmp_path: Path, name: str) -> None:
    with raises(Code.INVALID_HOME_PATH, name):
        Home(tmp_path / name).prepare()
    assert not (tmp_path / name).exists()


def test_a_file_in_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with raises(Code.PATH_NOT_WRITABLE, tmp_path / "file", "MILLRACE_HOME"):
        Home(tmp_path / "file/home").prepare()


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    with raises(Code.DISK_FULL, tmp_path, "100 MB", "1074 MB"):
        Home(tmp_path).prepare()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, Code.DISK_FULL), (errno.EDQUOT, Code.DISK_FULL), (errno.EROFS, Code.PATH_NOT_WRITABLE)],
)
def test_an_error_of_the_disk_has_a_code(tmp_path: Path, number: int, code: Code) -> None:
    with raises(code, tmp_path), explain_disk(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path))


def test_another_error_of_the_system_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), explain_disk(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_password_that_a_user_has_changed_is_read(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    assert home.password == home.secrets["ui"]
    write_private(home.passwords, '{"admin": "mine"}')
    assert home.password == "mine"


def test_an_interrupted_restore_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.require_restored()
    home.pending_restore.write_text("/backups/monday")
    with raises(Code.RESTORE_INTERRUPTED, "./millrace restore /backups/monday --yes"):
        home.require_restored()
