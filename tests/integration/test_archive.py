"""The archive of Kafka's classes, which the installation of this environment has made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from embedded import kafka
from embedded.home import Home


def loading(home: Home) -> "subprocess.CompletedProcess[str]":
    """The broker's command without settings, which says how to use it and where each of its classes came from."""
    java, *arguments = kafka.command(home)[:-1]
    return subprocess.run([java, "-Xlog:class+load", *arguments], capture_output=True, text=True, check=False)


def test_a_broker_takes_its_classes_from_the_archive(home: Home) -> None:
    loaded = loading(home).stdout.splitlines()
    assert any("kafka.Kafka$ source: shared objects file (top)" in line for line in loaded)


@pytest.mark.parametrize("archive", ["none", "empty", "cut", "of_other_jars"])
def test_a_broker_starts_without_it(home: Home, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = kafka.archive(home.environment), kafka.archive(tmp_path)
    here.parent.mkdir()
    for file in there.parent.glob("*.jsa"):
        shutil.copy2(file, here.parent)
    for jar in there.parent.glob("*.jar"):
        (shutil.copy2 if archive == "of_other_jars" else os.symlink)(jar, here.parent / jar.name)
    match archive:
        case "none":
            here.unlink()
        case "empty":
            here.write_bytes(b"")
        case "cut":
            here.write_bytes(here.read_bytes()[:1_000_000])
        case "of_other_jars":
            for jar in here.parent.glob("*.jar"):
                os.utime(jar)
    monkeypatch.setenv("MILLRACE_ENV", str(tmp_path))
    done = loading(home)
    assert "USAGE" in done.stdout + done.stderr
    assert "kafka.Kafka$ source: shared" not in done.stdout
