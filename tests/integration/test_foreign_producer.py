"""The producer of docs/manifest.md, as it is written there: its version is landed and proven like any other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from embedded.platform import Platform
from include import connections
from include.kafka import topics
from include.versions import reading
from include.versions.manifest import CONTROL_TOPIC, Manifest, decode

DOCUMENT = Path(__file__).parents[2] / "docs/manifest.md"


def test_a_version_of_another_program_is_proven(services: Platform, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    topics.create(CONTROL_TOPIC, partitions=1, config={"retention.ms": "-1"})
    before = topics.extents(CONTROL_TOPIC, [0])[0].end
    brokers = connections.kafka()["bootstrap.servers"]
    program = [sys.executable, "-c", code[1], brokers]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path, env=_without_project())
    manifest = next(found for found in _manifests(before) if found.version == done.stdout.strip())
    rows = reading.read(manifest)
    assert (rows.train.num_rows, rows.test.num_rows) == (120, 30)
    assert rows.test.column("flower").to_pylist() == list(range(0, 150, 5))


def _without_project() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _manifests(first: int) -> list[Manifest]:
    from include.kafka.reader import read_range

    batches = read_range(CONTROL_TOPIC, {0: (first, topics.extents(CONTROL_TOPIC, [0])[0].end)})
    return [decode(message.value()) for batch in batches for message in batch]
