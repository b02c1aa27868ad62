"""supervisord as the platform runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from embedded import processes
from tests.polling import until


def exits(log: Path) -> int:
    """How many times the program has ended, by supervisord's log."""
    return log.read_text().count("exited: short") if log.exists() else 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_does_not_end_the_supervisor(tmp_path: Path) -> None:
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nlogfile={tmp_path}/log\npidfile={tmp_path}/pid\nchildlogdir={tmp_path}\n"
        "[program:short]\ncommand=/bin/sleep 0.1\nstartsecs=0\nautorestart=true\n"
        f'environment={processes.COMPONENT_VARIABLE}="short"\n'
        "stdout_logfile=/dev/null\nstderr_logfile=/dev/null\n"
    )
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "embedded.supervisord", "--nodaemon", "-c", str(configuration)],
            stdout=full,
            stderr=full,
        )
    try:
        log = tmp_path / "log"
        until("the program has ended three times", lambda: process.poll() is not None or exits(log) >= 3)
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait()
