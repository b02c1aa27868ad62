"""Install Millrace's own environment from its lock files. Standard library only: nothing is installed yet.

`./millrace` runs this when the environment does not match the lock files. At the end of an installation the lock files
are copied into the environment, so that an interrupted installation is repeated.
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
from collections.abc import Iterator, Sequence
from pathlib import Path

from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT

LOCKS = (ROOT / "requirements.txt", ROOT / "embedded/kafka.lock.toml")
DEVELOPMENT_LOCK = ROOT / "requirements-dev.txt"
NEEDED_BYTES = 2 * 1024**3

Command = Sequence[str | Path]


def install(environment: Path, *, development: bool = False) -> None:
    """Install what the lock files list, unless `environment` has it already. Raises UserError."""
    if _is_current(environment, development):
        return
    with _explain_disk(environment), _locked(environment):
        if _is_current(environment, development):
            return
        _require_space(environment)
        started = time.monotonic()
        marks = environment / "installed"
        python = environment / "bin/python"
        if not (marks / LOCKS[0].name).exists():
            _print(f"installing Millrace's environment in {environment} (once; about 1 GB)")
            venv.create(environment, clear=True, symlinks=True)
        shutil.rmtree(marks, ignore_errors=True)
        settings = _index_settings()
        if not _has_uv(environment):
            _install_uv(environment, settings)
        locks = [LOCKS[0], DEVELOPMENT_LOCK] if development else [LOCKS[0]]
        uv: Command = [environment / "bin/uv", "pip", "sync", "--quiet", "--python", python, "--require-hashes", *locks]
        _run(uv, settings, "installing the Python packages", "The Python packages could not be installed")
        if not _same(environment / "kafka/.lock", LOCKS[1]):
            jars: Command = [python, "-P", "-m", "embedded.jars", "install", environment / "kafka"]
            _run(jars, settings, "downloading Kafka", "Kafka could not be installed")
            shutil.copyfile(LOCKS[1], environment / "kafka/.lock")
        archive: Command = [python, "-P", "-m", "embedded.archive", environment]
        if not _succeeds(archive, settings, "preparing Kafka's classes"):
            _print("Kafka works without this step, but starts more slowly")
        marks.mkdir()
        for lock in (*LOCKS, DEVELOPMENT_LOCK) if development else LOCKS:
            shutil.copyfile(lock, marks / lock.name)
        _print(f"environment ready after {time.monotonic() - started:.0f} s")


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
def _locked(environment: Path) -> Iterator[None]:
    """Lock the environment against a second installation at the same time."""
    environment.parent.mkdir(parents=True, exist_ok=True)
    with open(environment.with_name(environment.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _print("another ./millrace is installing the environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _explain_disk(environment: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The environment cannot be installed: the disk that holds {environment} is full.",
                "Free some space, and run the command again.",
                code=Code.DISK_FULL,
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            raise UserError(
                f"The environment cannot be installed: {error.filename or environment} cannot be written "
                f"({error.strerror}).",
                "Make it writable, or choose another directory with MILLRACE_HOME.",
                code=Code.PATH_NOT_WRITABLE,
            ) from error
        raise


def _require_space(environment: Path) -> None:
    free = shutil.disk_usage(environment.parent).free
    if free < NEEDED_BYTES and not (environment / "bin/uv").exists():
        raise UserError(
            f"The disk that holds {environment} has {free / 1e6:.0f} MB free, and the installation needs about "
            f"{NEEDED_BYTES / 1e6:.0f} MB.",
            "Free some space, or choose another directory with MILLRACE_HOME.",
            code=Code.DISK_FULL,
        )


def _has_uv(environment: Path) -> bool:
    wanted = re.search(r"^uv==(\S+)", LOCKS[0].read_text(), re.MULTILINE)
    assert wanted, "requirements.txt pins uv"
    site = sysconfig.get_path("purelib", "venv", {"base": str(environment)})
    return Path(site, f"uv-{wanted[1]}.dist-info/RECORD").exists()


def _install_uv(environment: Path, settings: dict[str, str]) -> None:
    """Install the pinned uv with the first installer that works: the bundled pip, Python's own pip, or a uv on PATH."""
    pinned = re.search(r"^uv==.*(?:\n .*)*", LOCKS[0].read_text(), re.MULTILINE)
    assert pinned, "requirements.txt pins uv"
    requirement = environment / "uv.txt"
    requirement.write_text(pinned[0] + "\n")
    python = environment / "bin/python"
    arguments = [
        "install",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-r",
        str(requirement),
    ]
    installers = [[str(python), f"{wheel}/pip", *arguments] for wheel in _bundled_pips()]
    installers.append([sys.executable, "-m", "pip", "--python", str(python), *arguments])
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
    raise UserError(
        f"No installer of this Python ({sys.executable}) could download uv: {reasons}.",
        "Check the network and the package index of your pip settings, or install pip or uv for this Python, and run "
        "the command again.",
        code=Code.INSTALLATION_FAILED,
    )


def _bundled_pips() -> list[str]:
    """The pip wheels of Python and of the distribution, newest first. pip can run from its wheel."""
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
    """The user's pip settings (files and PIP_* variables) as variables of uv. uv's own variables take precedence.

    A certificate bundle that is named for one program is passed to all, because every download needs the same.
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
    # pip lists variables before files, and variables take precedence.
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


def _run(command: Command, settings: dict[str, str], step: str, failure: str) -> None:
    """Run a command that has to succeed. Raises UserError."""
    if not _succeeds(command, settings, step):
        raise UserError(
            f"{failure}; the lines above show the reason.",
            "Fix it (often the network or the disk), and run the command again.",
            code=Code.INSTALLATION_FAILED,
        )


def _succeeds(command: Command, settings: dict[str, str], step: str) -> bool:
    """Run a command and return whether it succeeds. A terminal shows how long it has been running."""
    process = subprocess.Popen(list(map(str, command)), env=_child_environment(settings), stdin=subprocess.DEVNULL)
    started, terminal = time.monotonic(), sys.stderr.isatty()
    _print(f"{step} …", end="" if terminal else "\n")
    while True:
        try:
            code = process.wait(timeout=1)
            break
        except subprocess.TimeoutExpired:
            if terminal:
                _print(f"\r{step} … {time.monotonic() - started:.0f} s", end="")
        except KeyboardInterrupt:
            process.wait()
            raise
    if terminal:
        print(file=sys.stderr)
    return code == 0


def _print(text: str, end: str = "\n") -> None:
    start = "\r" if text.startswith("\r") else ""
    print(f"{start}millrace: {text.lstrip()}", file=sys.stderr, end=end, flush=True)


def main() -> None:
    """Install the environment; `--development` adds what the tests and checks need."""
    try:
        install(Path(os.environ["MILLRACE_ENV"]), development="--development" in sys.argv[1:])
    except UserError as error:
        sys.exit(f"millrace: {error}")
    except KeyboardInterrupt:
        sys.exit(f"millrace: The installation was interrupted. Run the command again. [{Code.COMMAND_INTERRUPTED}]")


if __name__ == "__main__":
    main()
