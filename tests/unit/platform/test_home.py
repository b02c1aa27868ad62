"""The home: what it makes, and what it says when it cannot."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from embedded.home import Home, explain_disk, write_private
from include.errors import UserError


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
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
    home.remember(ports={"kafka": 1})
    home.remember(generation="a")
    assert home.state() == {"ports": {"kafka": 1}, "generation": "a"}


@pytest.mark.parametrize("name", ["with:colon", "with,comma"])
def test_a_path_that_java_cannot_express(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="has a colon or a comma in its path"):
        Home(tmp_path / name).prepare()
    assert not (tmp_path / name).exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .* name another place with MILLRACE_HOME"):
        Home(tmp_path / "file/home").prepare()


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    with pytest.raises(UserError, match=r"has 100 MB free and the platform needs at least 1074 MB\. Free some space"):
        Home(tmp_path).prepare()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "is full. Free some space"), (errno.EDQUOT, "is full"), (errno.EROFS, "cannot be written")],
)
def test_what_the_system_refuses_is_one_sentence(tmp_path: Path, number: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), explain_disk(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), explain_disk(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_password_that_a_person_has_changed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    assert home.password == home.secrets["ui"]
    write_private(home.passwords, '{"admin": "mine"}')
    assert home.password == "mine"


def test_an_interrupted_restore_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.require_whole()
    home.pending_restore.write_text("/backups/monday")
    with pytest.raises(UserError, match=r"A restore of /backups/monday .* Repeat it: \./millrace restore"):
        home.require_whole()
