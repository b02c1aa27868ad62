"""The installation from the lock files, over the network from which the checkout was installed."""

import os
import signal
import subprocess
import time
from pathlib import Path

from embedded import kafka
from include.project import ROOT


def start(environment: Path) -> "subprocess.Popen[str]":
    """Start `./millrace --help` with a new environment, in its own process group."""
    return subprocess.Popen(
        [str(ROOT / "millrace"), "--help"],
        env=os.environ | {"MILLRACE_ENV": str(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_interrupted_installation_is_repeated_and_a_finished_one_is_not(tmp_path: Path) -> None:
    environment = tmp_path / "an environment"
    interrupted = start(environment)
    while not (environment / "bin/uv").exists():
        assert interrupted.poll() is None, interrupted.communicate()
        time.sleep(0.05)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    assert not (environment / "installed/requirements.txt").exists()

    one, other = start(environment), start(environment)
    outputs = [process.communicate() for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), outputs
    assert sum("environment ready" in errors for _, errors in outputs) == 1
    assert len(list((environment / "kafka").glob("*.jar"))) == 46
    assert kafka.archive(environment).exists()

    finished = start(environment)
    out, errors = finished.communicate()
    assert "Start here:" in out
    assert errors == ""
