"""The installation from the locks, with the network that the checkout itself was installed from."""

import os
import signal
import subprocess
import time
from pathlib import Path

from embedded import kafka
from include.project import ROOT


def start(environment: Path) -> "subprocess.Popen[str]":
    """`./millrace --help` with an environment of its own, in a group of its own."""
    return subprocess.Popen(
        [str(ROOT / "millrace"), "--help"],
        env=os.environ | {"MILLRACE_ENV": str(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_interrupted_installation_goes_on_and_a_finished_one_costs_nothing(tmp_path: Path) -> None:
    environment = tmp_path / "an environment"
    interrupted = start(environment)
    while not (environment / "bin/uv").exists():
        assert interrupted.poll() is None, interrupted.communicate()
        time.sleep(0.05)
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.communicate()
    assert not (environment / "installed/requirements.txt").exists()

    one, other = start(environment), start(environment)
    said = [process.communicate() for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    assert sum("environment ready" in errors for _, errors in said) == 1
    assert len(list((environment / "kafka").glob("*.jar"))) == 46
    assert kafka.archive(environment).exists()

    finished = start(environment)
    out, errors = finished.communicate()
    assert "Start here:" in out
    assert errors == ""
