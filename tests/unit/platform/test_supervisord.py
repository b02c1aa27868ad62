"""supervisord as we run it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedded import processes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_does_not_end_it(tmp_path: Path) -> None:
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
        # Long enough for it to start, and to tell of the end of the program, several times.
        time.sleep(4)
        assert process.poll() is None, (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait()
