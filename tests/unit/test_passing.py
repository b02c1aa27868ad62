"""The definition that a killed benchmark leaves behind is ignored, and the next benchmark removes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import passing
from include.datasets import definitions
from include.error_codes import Code
from include.project import ROOT
from tests.errors import raises

TEMPLATE = (ROOT / "benchmarks" / "definition.txt").read_text()
TEXT = TEMPLATE.replace("NAME", "bench_1000").replace("FILE", "rows.parquet")
BENCHMARK = """
import sys
from pathlib import Path
from benchmarks import passing
passing.DEFINITIONS = Path(sys.argv[1])
with passing.workplace():
    (passing.folder() / "rows.parquet").write_text("rows")
    with passing.definition("bench_1000", sys.stdin.read()):
        print("running", flush=True)
        import time; time.sleep(60)
"""


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of datasets, and an empty home."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(passing, "DEFINITIONS", folder)
    return folder


def test_the_definition_of_a_killed_benchmark_is_ignored(datasets: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BENCHMARK, str(datasets)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as benchmark:
        assert benchmark.stdin and benchmark.stdout
        benchmark.stdin.write(TEXT)
        benchmark.stdin.close()
        assert benchmark.stdout.readline() == "running\n"
        assert list(definitions.find(datasets).valid) == ["bench_1000"]
        with raises(Code.BENCHMARK_RUNNING), passing.workplace():
            pass
        benchmark.kill()
    # A process does not load a module again that it has loaded while the file counted.
    sys.modules.pop("include.datasets.bench_1000")
    assert (datasets / "bench_1000.py").exists()
    found = definitions.find(datasets)
    assert (found.valid, found.broken) == ({}, {})

    own = datasets / "bench_press.py"
    own.write_text('"""The lifts of a gym."""\n')
    with passing.workplace():
        assert list(datasets.glob("*.py")) == [own]
        assert list(passing.folder().iterdir()) == []
    assert not passing.folder().exists()
    assert own.exists()


def test_a_benchmark_removes_its_definition(datasets: Path) -> None:
    with passing.workplace(), passing.definition("bench_1000", TEXT):
        assert list(definitions.find(datasets).valid) == ["bench_1000"]
    assert list(datasets.glob("*.py")) == []
