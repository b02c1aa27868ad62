"""A peer in a process of its own: what it says it took, its processor time, and its greatest memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.errors import UserError
from include.project import ROOT


@dataclass(frozen=True)
class Ended:
    """A process that has ended well.

    Attributes:
        figures: What it printed.
        cpu_s: Its processor time in seconds, start and imports included.
    """

    figures: Mapping[str, float]
    cpu_s: float

    @property
    def peak_rss(self) -> float:
        """The greatest memory it had, in bytes, as it found itself."""
        return self.figures["peak_rss"]


def peak_rss() -> int:
    """The greatest memory that this process had, in bytes; ``getrusage`` counts that of its parent at the fork too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise UserError("This system does not say how much memory a process has had.")


def run(way: str, *arguments: str, module: str = "benchmarks.peers.publishing") -> Ended:
    """Runs one way of a module to its end.

    Raises:
        UserError: It failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", module, way, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        if process.returncode:
            lines = said.read().strip().splitlines() or ["it says nothing"]
            raise UserError(f"{way} failed: {lines[-1]}.")
        figures = json.loads(out.read().strip().splitlines()[-1])
    return Ended(figures, usage.ru_utime + usage.ru_stime)
