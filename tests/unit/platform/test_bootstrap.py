"""The launcher and the installation, without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedded import bootstrap
from include.error_codes import Code
from include.project import ROOT
from tests.errors import raises


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The launcher in a checkout whose path has a space and whose bootstrap only prints which Python runs it."""
    root = tmp_path / "a checkout"
    package = root / "embedded"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "millrace", root)
    (package / "bootstrap.py").write_text(
        "import os, sys\nprint(os.path.basename(sys.argv[0]), sys.version_info >= (3, 11))\n"
    )
    for lock in bootstrap.LOCKS:
        (root / lock.relative_to(ROOT)).write_text("locked")
    return root


def launch(root: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(root)}
    tools = path / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    for tool in ("sh", "dirname", "readlink", "cmp"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    environment["PATH"] = f"{path}:{tools}"
    return subprocess.run([str(root / "millrace"), "up"], env=environment, capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_no_python(checkout: Path, tmp_path: Path) -> None:
    done = launch(checkout, tmp_path / "bin")
    assert done.returncode == 1
    assert done.stderr.startswith("millrace: ") and done.stderr.endswith(" [python-missing]\n")


def test_only_old_pythons(checkout: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin/python3", "exit 1")
    assert "[python-missing]" in launch(checkout, tmp_path / "bin").stderr


def test_a_new_python_is_found_after_an_old_one(checkout: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin/python3.13", "exit 1")
    program(tmp_path / "bin/python3", f'exec "{sys.executable}" "$@"')
    assert launch(checkout, tmp_path / "bin").stdout == "bootstrap.py True\n"


def test_an_installed_environment_is_used_immediately(checkout: Path, tmp_path: Path) -> None:
    environment = checkout / ".millrace/env"
    program(environment / "bin/python", 'echo "$@"')
    (environment / "installed").mkdir()
    for lock in bootstrap.LOCKS:
        (environment / "installed" / lock.name).write_text("locked")
    assert launch(checkout, tmp_path / "bin").stdout == "-P -m cli.main up\n"


def test_a_changed_lock_installs_again(checkout: Path, tmp_path: Path) -> None:
    environment = checkout / ".millrace/env"
    program(environment / "bin/python", 'echo "$@"')
    (environment / "installed").mkdir()
    for lock in bootstrap.LOCKS:
        (environment / "installed" / lock.name).write_text("an older lock")
    program(tmp_path / "bin/python3", f'exec "{sys.executable}" "$@"')
    assert launch(checkout, tmp_path / "bin").stdout.startswith("bootstrap.py True\n")


def test_the_running_environment_is_current() -> None:
    environment = Path(os.environ["MILLRACE_ENV"])
    bootstrap.install(environment, development=True)
    assert (environment / "installed/requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()


def test_uv_gets_the_users_variables_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{wheels} {tmp_path}/missing")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.example")
    monkeypatch.setenv("PIP_CERT", "/etc/company.pem")
    settings = bootstrap._index_settings()
    assert settings["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert settings["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert settings["UV_FIND_LINKS"] == str(wheels)
    assert settings["UV_INSECURE_HOST"] == "packages.example"
    assert settings["SSL_CERT_FILE"] == settings["REQUESTS_CA_BUNDLE"] == "/etc/company.pem"


def test_uv_gets_the_users_configuration_file_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\nindex-url = https://packages.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    assert bootstrap._index_settings()["UV_DEFAULT_INDEX"] == "https://packages.example/simple"


def test_a_directory_that_cannot_be_written() -> None:
    with raises(Code.PATH_NOT_WRITABLE, "/proc/millrace", "MILLRACE_HOME"):
        bootstrap.install(Path("/proc/millrace/env"))


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    with raises(Code.DISK_FULL, tmp_path, "100 MB", "2147 MB"):
        bootstrap.install(tmp_path / "env")
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt", "embedded/kafka.lock.toml"])
def test_locks_are_pinned_by_hash_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text
    if lock.endswith(".txt"):
        entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert all("==" in entry for entry in entries)
        assert text.count("--hash=sha256:") >= len(entries)
    else:
        assert text.count("[[dependencies]]") == text.count("sha256 = ")
