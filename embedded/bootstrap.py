"""Make Millrace's own environment from its locks. Standard library only: nothing is installed yet.

`./millrace` starts this when the environment is not the one that the locks describe. The environment keeps a copy of
the locks that it was installed from, written last, so that an interrupted installation is simply done again.
"""

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from include.project import ROOT

LOCKS = (ROOT / "requirements.txt", ROOT / "embedded/kafka.lock.toml")
DEVELOPMENT_LOCK = ROOT / "requirements-dev.txt"
NEEDED_BYTES = 2 * 1024**3


class InstallError(Exception):
    """One sentence that says what stopped the installation and how to go on."""


def install(environment: Path, *, development: bool = False) -> None:
    """Bring `environment` to what the locks say; does nothing when it is already there.

    Raises InstallError.
    """
    if _is_current(environment, development):
        return
    with _explained(environment), _alone(environment):
        if _is_current(environment, development):
            return
        _require_space(environment)
        started = time.monotonic()
        marks = environment / "installed"
        python = environment / "bin/python"
        if not (marks / LOCKS[0].name).exists():
            _say(f"making Millrace's environment in {environment} (once; about 1 GB)")
            venv.create(environment, clear=True, symlinks=True)
        shutil.rmtree(marks, ignore_errors=True)
        settings = _index_settings()
        if not _has_uv(environment):
            _install_uv(environment, settings)
        locks = [LOCKS[0], DEVELOPMENT_LOCK] if development else [LOCKS[0]]
        uv = [environment / "bin/uv", "pip", "sync", "--quiet", "--python", python, "--require-hashes", *locks]
        _run(uv, settings, "installing the Python packages", "The Python packages could not be installed")
        if not _same(environment / "kafka/.lock", LOCKS[1]):
            jars = [python, "-P", "-m", "embedded.jars", "install", environment / "kafka"]
            _run(jars, settings, "fetching Kafka", "Kafka could not be installed")
            shutil.copyfile(LOCKS[1], environment / "kafka/.lock")
        archive = [python, "-P", "-m", "embedded.archive", environment]
        if not _succeeds(archive, settings, "preparing Kafka's classes"):
            _say("Kafka works without that, and takes longer to start")
        marks.mkdir()
        for lock in (*LOCKS, DEVELOPMENT_LOCK) if development else LOCKS:
            shutil.copyfile(lock, marks / lock.name)
        _say(f"environment ready after {time.monotonic() - started:.0f} s")


def _is_current(environment: Path, development: bool) -> bool:
    locks = (*LOCKS, DEVELOPMENT_LOCK) if development else LOCKS
    usable = os.access(environment / "bin/python", os.X_OK)
    return usable and all(_same(environment / "installed" / lock.name, lock) for lock in locks)


def _same(copy: Path, original: Path) -> bool:
    try:
        return copy.read_bytes() == original.read_bytes()
    except OSError:
        return False


@contextlib.contextmanager
def _alone(environment: Path) -> Iterator[None]:
    """Hold the environment against a second installation at the same time."""
    environment.parent.mkdir(parents=True, exist_ok=True)
    with open(environment.with_name(environment.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another ./millrace is installing the environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _explained(environment: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"the disk that holds {environment} is full; free some space"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            reason = f"{error.filename or environment} cannot be written; name another place with MILLRACE_HOME"
        else:
            raise
        raise InstallError(f"The environment cannot be made: {reason}, and start again.") from error


def _require_space(environment: Path) -> None:
    free = shutil.disk_usage(environment.parent).free
    if free < NEEDED_BYTES and not (environment / "bin/uv").exists():
        raise InstallError(
            f"The disk that holds {environment} has {free / 1e6:.0f} MB free and the installation needs about "
            f"{NEEDED_BYTES / 1e6:.0f} MB; free some space or name another place with MILLRACE_HOME."
        )


def _has_uv(environment: Path) -> bool:
    wanted = re.search(r"^uv==(\S+)", LOCKS[0].read_text(), re.MULTILINE)
    assert wanted, "requirements.txt pins uv"
    site = sysconfig.get_path("purelib", "venv", {"base": str(environment)})
    return Path(site, f"uv-{wanted[1]}.dist-info/RECORD").exists()


def _install_uv(environment: Path, settings: dict[str, str]) -> None:
    """Install the pinned uv by whichever installer this Python has: its bundled pip, its own pip, or a uv on PATH."""
    pinned = re.search(r"^uv==.*(?:\n .*)*", LOCKS[0].read_text(), re.MULTILINE)
    assert pinned, "requirements.txt pins uv"
    requirement = environment / "uv.txt"
    requirement.write_text(pinned[0] + "\n")
    python = environment / "bin/python"
    asked = [
        "install",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-r",
        str(requirement),
    ]
    installers = [[str(python), f"{wheel}/pip", *asked] for wheel in _bundled_pips()]
    installers.append([sys.executable, "-m", "pip", "--python", str(python), *asked])
    if found := shutil.which("uv"):
        installers.append(
            [found, "pip", "install", "--python", str(python), "--require-hashes", "-r", str(requirement)]
        )
    failures = []
    for command in installers:
        done = subprocess.run(command, env=_child_environment(settings), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            requirement.unlink()
            return
        failures.append(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    reasons = "; ".join(dict.fromkeys(failures))
    raise InstallError(
        f"No installer of this Python ({sys.executable}) could fetch uv: {reasons}. Check the network and the package "
        "index of your pip settings, or install pip or uv for this Python, and start again."
    )


def _bundled_pips() -> list[str]:
    """pip wheels that come with Python or the distribution, newest first; pip runs straight from its wheel."""
    directories = [
        sysconfig.get_config_var("WHEEL_PKG_DIR"),
        "/usr/share/python-wheels",
        "/usr/share/python3-wheels",
    ]
    with contextlib.suppress(ImportError):
        import ensurepip

        directories.insert(0, str(Path(ensurepip.__file__).parent / "_bundled"))
    wheels = [wheel for directory in directories if directory for wheel in glob.glob(f"{directory}/pip-*.whl")]
    return sorted(set(wheels), reverse=True)


def _index_settings() -> dict[str, str]:
    """The user's pip settings (its files and PIP_* variables) as uv's variables; uv's own variables win.

    Certificates named for one program are named for all, because every download here has the same reason to need them.
    """
    pip = _pip_settings()
    settings = {}
    if index := pip.get("index-url"):
        settings["UV_DEFAULT_INDEX"] = index
    if extra := pip.get("extra-index-url"):
        settings["UV_INDEX"] = " ".join(extra.split())
    if links := [link for link in pip.get("find-links", "").split() if "://" in link or Path(link).is_dir()]:
        settings["UV_FIND_LINKS"] = ",".join(links)
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        settings["UV_NO_INDEX"] = "1"
    if hosts := pip.get("trusted-host"):
        settings["UV_INSECURE_HOST"] = " ".join(hosts.split())
    if timeout := pip.get("timeout") or pip.get("default-timeout"):
        settings["UV_HTTP_TIMEOUT"] = timeout
    if proxy := pip.get("proxy"):
        settings.update(HTTPS_PROXY=proxy, HTTP_PROXY=proxy)
    bundles = (
        pip.get("cert"),
        *map(os.environ.get, ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")),
    )
    if bundle := next(filter(None, bundles), None):
        settings.update(SSL_CERT_FILE=bundle, REQUESTS_CA_BUNDLE=bundle)
    if not _writable_cache():
        settings["UV_NO_CACHE"] = "1"
    return settings


def _pip_settings() -> dict[str, str]:
    listing = ""
    for program in ([sys.executable, f"{wheel}/pip"] for wheel in _bundled_pips()):
        done = subprocess.run([*program, "config", "list"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            listing = done.stdout
            break
    found = {}
    # pip lists variables before files; the last one wins here, and variables win for pip.
    for line in reversed(listing.splitlines()):
        name, _, value = line.partition("=")
        scope, _, option = name.partition(".")
        if scope in ("global", "install", ":env:"):
            found[option] = value.strip("'\"").replace("\\n", " ").strip()
    return found


def _writable_cache() -> bool:
    cache = os.environ.get("UV_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    with contextlib.suppress(OSError):
        Path(cache).mkdir(parents=True, exist_ok=True)
    return os.access(cache, os.W_OK)


def _child_environment(settings: dict[str, str]) -> dict[str, str]:
    return {"UV_SYSTEM_CERTS": "1", **settings, **os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _run(command: list, settings: dict[str, str], step: str, failure: str) -> None:
    """Run a command that has to succeed. Raises InstallError."""
    if not _succeeds(command, settings, step):
        raise InstallError(f"{failure}: the reason is above. Fix it (often the network or the disk) and start again.")


def _succeeds(command: list, settings: dict[str, str], step: str) -> bool:
    """Run a command, and give whether it succeeds; a terminal is shown how long that takes, all else that it began."""
    process = subprocess.Popen(list(map(str, command)), env=_child_environment(settings), stdin=subprocess.DEVNULL)
    started, terminal = time.monotonic(), sys.stderr.isatty()
    _say(f"{step} …", end="" if terminal else "\n")
    while True:
        try:
            code = process.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if terminal:
                _say(f"\r{step} … {time.monotonic() - started:.0f} s", end="")
        except KeyboardInterrupt:
            process.wait()
            raise
    if terminal:
        print(file=sys.stderr)
    return code == 0


def _say(text: str, end: str = "\n") -> None:
    again = "\r" if text.startswith("\r") else ""
    print(f"{again}millrace: {text.lstrip()}", file=sys.stderr, end=end, flush=True)


def main() -> None:
    """Install; `--development` adds what the tests and checks need."""
    try:
        install(Path(os.environ["MILLRACE_ENV"]), development="--development" in sys.argv[1:])
    except InstallError as error:
        sys.exit(f"millrace: {error}")
    except KeyboardInterrupt:
        sys.exit("millrace: interrupted; start again and the installation goes on")


if __name__ == "__main__":
    main()
