"""Kafka's jars: resolved once into a lock file, fetched from it with every sum checked.

The lock is jgo's own format (`jgo.lock.toml`), so that jgo's commands read it too.
"""

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from include.errors import UserError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j and log4j 2; the broker's own dependencies leave the binding out.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
LOCK = Path(__file__).with_name("kafka.lock.toml")

_PARALLEL_DOWNLOADS = 12


def lock(path: Path = LOCK) -> int:
    """Resolve Kafka and its dependencies and write their names and SHA-256 sums; gives the number of jars."""
    import jgo
    from jgo.env._lockfile import LockFile

    artifacts = {artifact.key: artifact for name in (KAFKA, LOGGING) for artifact in jgo.resolve(name)}
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        dependencies = list(pool.map(_locked, artifacts.values()))
    dependencies.sort(key=lambda dependency: (dependency.groupId, dependency.artifactId))
    known = LockFile.load(path).dependencies if path.exists() else []
    # The file carries the time of its making, which alone is no change.
    if [one.to_dict() for one in dependencies] != [one.to_dict() for one in known]:
        LockFile(dependencies).save(path)
    return len(dependencies)


def install(directory: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
    """Put every locked jar into `directory`, which holds nothing else afterwards.

    Raises UserError when a jar cannot be had or its sum is wrong; `directory` is then not changed.
    """
    from jgo.env._lockfile import LockFile

    locked = LockFile.load(LOCK).dependencies
    staging = directory.with_name(directory.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    jars = staging / "jars"
    jars.mkdir(parents=True)
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for done, jar in enumerate(pool.map(lambda dependency: _fetch(dependency, staging), locked), 1):
            jar.rename(jars / jar.name)
            progress(done, len(locked))
    shutil.rmtree(directory, ignore_errors=True)
    jars.rename(directory)
    shutil.rmtree(staging)


def _locked(artifact):  # type: ignore[no-untyped-def]
    from jgo.env._lockfile import LockedDependency, compute_sha256

    return LockedDependency(
        groupId=artifact.groupId,
        artifactId=artifact.artifactId,
        version=artifact.version,
        packaging=artifact.packaging,
        classifier=artifact.classifier,
        sha256=compute_sha256(artifact.resolve()),
    )


def _fetch(dependency, staging: Path) -> Path:  # type: ignore[no-untyped-def]
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
    # A name that is not resolved once, or a connection that is cut, is no reason to start over.
    patient = Retrying(
        stop=stop_after_attempt(3),
        wait=wait_fixed(1),
        retry=retry_if_exception_type((OSError, RuntimeError)),
        reraise=True,
    )
    try:
        jar = patient(artifact.resolve)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Kafka's {artifact.filename} could not be fetched ({error}). Check the network, or name your own "
            "repository in jgo's settings file, and start again."
        ) from error
    if (found := compute_sha256(jar)) != dependency.sha256:
        raise UserError(
            f"Kafka's {artifact.filename} is not the locked one: its SHA-256 is {found}, the lock says "
            f"{dependency.sha256}. Do not use that repository, or start again if the download was cut short."
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
                sys.exit(str(error))
        case _:
            sys.exit("usage: python -m embedded.jars lock | install DIRECTORY")


if __name__ == "__main__":
    main()
