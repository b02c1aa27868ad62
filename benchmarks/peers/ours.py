"""The drain of Millrace, with every guarantee, called like the task of the DAG; with the current state if asked."""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.peers import topic
from include.airflow.drain_task import import_pyarrow_without_pandas

NAME = "bench_landing"
CURRENT = "current"

if __name__ == "__main__":
    import_pyarrow_without_pandas()
    from include.landing.drain import drain

    options = [each for each in sys.argv[2:] if each != CURRENT]
    stream = topic.stream_of(NAME, sys.argv[1], *options)
    drain(replace(stream, key=topic.KEY, current=True) if CURRENT in sys.argv[2:] else stream, owner="benchmark")
