"""The archive of Kafka's loaded classes, which the installation of this environment has made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from embedded import kafka
from embedded.home import Home


def load_classes(home: Home) -> "subprocess.CompletedProcess[str]":
    """Run the broker without settings: it prints its usage and where each of its classes comes from."""
    java, *arguments = kafka.command(home)[:-1]
    return subprocess.run([java, "-Xlog:class+load", *arguments], capture_output=True, text=True, check=False)


def test_a_broker_takes_its_classes_from_the_archive(home: Home) -> None:
    loaded = load_classes(home).stdout.splitlines()
    assert any("kafka.Kafka$ source: shared objects file (top)" in line for line in loaded)


@pytest.mark.parametrize("archive", ["none", "empty", "cut", "of_other_jars"])
def test_a_broker_starts_without_a_usable_archive(
    home: Home, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, copy = kafka.archive(home.environment), kafka.archive(tmp_path)
    copy.parent.mkdir()
    for file in original.parent.glob("*.jsa"):
        shutil.copy2(file, copy.parent)
    for jar in original.parent.glob("*.jar"):
        (shutil.copy2 if archive == "of_other_jars" else os.symlink)(jar, copy.parent / jar.name)
    match archive:
        case "none":
            copy.unlink()
        case "empty":
            copy.write_bytes(b"")
        case "cut":
            copy.write_bytes(copy.read_bytes()[:1_000_000])
        case "of_other_jars":
            for jar in copy.parent.glob("*.jar"):
                os.utime(jar)
    monkeypatch.setenv("MILLRACE_ENV", str(tmp_path))
    done = load_classes(home)
    assert "USAGE" in done.stdout + done.stderr
    assert "kafka.Kafka$ source: shared" not in done.stdout
