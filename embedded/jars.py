"""Kafka's jars: resolved once into a lock file, then downloaded with every checksum verified.

The lock file has jgo's own format (`jgo.lock.toml`), so that jgo's commands can read it.
"""

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from include.error_codes import Code
from include.errors import UserError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j and log4j 2; its own dependencies do not include the binding.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
LOCK = Path(__file__).with_name("kafka.lock.toml")

_PARALLEL_DOWNLOADS = 12


def lock(path: Path = LOCK) -> int:
    """Resolve Kafka and its dependencies, write their names and SHA-256 checksums, and return the number of jars."""
    import jgo
    from jgo.env._lockfile import LockFile

    artifacts = {artifact.key: artifact for name in (KAFKA, LOGGING) for artifact in jgo.resolve(name)}
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        dependencies = list(pool.map(_locked, artifacts.values()))
    dependencies.sort(key=lambda dependency: (dependency.groupId, dependency.artifactId))
    known = LockFile.load(path).dependencies if path.exists() else []
    # The file contains the time at which it was written, which alone is not a change.
    if [one.to_dict() for one in dependencies] != [one.to_dict() for one in known]:
        LockFile(dependencies).save(path)
    return len(dependencies)


def install(directory: Path, lock: Path = LOCK, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
    """Download every file of a lock file into `directory` and remove everything else from it.

    Raises UserError, and changes nothing, when a file cannot be downloaded or its checksum is wrong.
    """
    from jgo.env._lockfile import LockFile

    locked = LockFile.load(lock).dependencies
    staging = directory.with_name(directory.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    jars = staging / "jars"
    jars.mkdir(parents=True)
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for done, jar in enumerate(pool.map(lambda dependency: _download(dependency, staging), locked), 1):
            jar.rename(jars / jar.name)
            progress(done, len(locked))
    shutil.rmtree(directory, ignore_errors=True)
    jars.rename(directory)
    shutil.rmtree(staging)


def _locked(artifact: Any) -> Any:
    from jgo.env._lockfile import LockedDependency, compute_sha256

    return LockedDependency(
        groupId=artifact.groupId,
        artifactId=artifact.artifactId,
        version=artifact.version,
        packaging=artifact.packaging,
        classifier=artifact.classifier,
        sha256=compute_sha256(artifact.resolve()),
    )


def _download(dependency: Any, staging: Path) -> Path:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.env._lockfile import compute_sha256
    from jgo.maven import MavenContext
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    settings = GlobalSettings.load()
    context = MavenContext(
        repo_cache=staging / "repository",
        remote_repos=settings.repositories or {"central": MAVEN_CENTRAL_URL},
        timeout=60,
    )
    component = context.project(dependency.groupId, dependency.artifactId).at_version(dependency.version)
    artifact = component.artifact(dependency.classifier or "", dependency.packaging)
    # A failed name resolution or a lost connection is worth another try.
    retrying = Retrying(
        stop=stop_after_attempt(3),
        wait=wait_fixed(1),
        retry=retry_if_exception_type((OSError, RuntimeError)),
        reraise=True,
    )
    try:
        jar = retrying(artifact.resolve)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{artifact.filename} could not be downloaded ({error}).",
            "Check the network, or name your own repository in jgo's settings file, and run the command again.",
            code=Code.DOWNLOAD_FAILED,
        ) from error
    if (found := compute_sha256(jar)) != dependency.sha256:
        raise UserError(
            f"{artifact.filename} has the SHA-256 {found}, and the lock file lists {dependency.sha256}.",
            "Run the command again. If the error returns, do not use that repository.",
            code=Code.CHECKSUM_MISMATCH,
        )
    return Path(jar)


def main() -> None:
    """`python -m embedded.jars lock`, or `install DIRECTORY`."""
    match sys.argv[1:]:
        case ["lock"]:
            print(f"{lock()} jars locked in {os.path.relpath(LOCK)}")
        case ["install", directory]:
            try:
                install(Path(directory))
            except UserError as error:
                sys.exit(f"millrace: {error}")
        case _:
            sys.exit("usage: python -m embedded.jars lock | install DIRECTORY")


if __name__ == "__main__":
    main()
