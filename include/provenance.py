"""Provenance: the code, the libraries and the kind of machine that made a result."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from include.project import ROOT

_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops", "confluent-kafka", "apache-airflow")


@cache
def code_version() -> str:
    """``git:<commit>`` of a clean checkout, otherwise ``sha256:<digest>`` of all of Millrace's Python files."""
    try:
        # The first lines begin with # and name the commit; every other line is a change.
        status = _git("status", "--porcelain=v2", "--branch", "--", "include", "embedded", "dags")
    except OSError:
        return _digest_of_files()
    prefix, lines = "# branch.oid ", status.stdout.splitlines()
    commit = next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "(initial)")
    if status.returncode or commit == "(initial)" or not all(line.startswith("#") for line in lines):
        return _digest_of_files()
    return f"git:{commit}"


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result can depend on, and the kind of machine."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _digest_of_files() -> str:
    digest = hashlib.sha256()
    for folder in ("include", "embedded", "dags"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return f"sha256:{digest.hexdigest()}"
