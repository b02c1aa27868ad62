"""Runs a peer in a process: the figures that it prints, its CPU time and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT


@dataclass(frozen=True)
class Ended:
    """A process that has succeeded.

    Attributes:
        figures: The JSON that it printed.
        cpu_s: Its CPU time in seconds, with start and imports.
    """

    figures: Mapping[str, float]
    cpu_s: float

    @property
    def peak_rss(self) -> float:
        """Its peak memory in bytes, as measured by itself."""
        return self.figures["peak_rss"]


def peak_rss() -> int:
    """The peak memory of this process, in bytes; ``getrusage`` would include its parent's at the fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise UserError(
        "This system does not report the peak memory of a process.", "Use Linux.", code=Code.BENCHMARK_FAILED
    )


def run(way: str, *arguments: str, module: str = "benchmarks.peers.publishing") -> Ended:
    """Runs one function of a module in a process, and waits for its end.

    Raises:
        UserError: The process failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", module, way, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = errors.read().strip().splitlines() or ["no output"]
            raise UserError(f"The process {way} failed: {lines[-1]}.", code=Code.BENCHMARK_FAILED)
        figures = json.loads(out.read().strip().splitlines()[-1])
    return Ended(figures, usage.ru_utime + usage.ru_stime)
