"""The drain of Millrace, with every guarantee, called like the task of the DAG."""

from __future__ import annotations

import sys

from benchmarks.peers import topic
from include.airflow.drain_task import import_pyarrow_without_pandas

NAME = "bench_landing"

if __name__ == "__main__":
    import_pyarrow_without_pandas()
    from include.landing.drain import drain

    drain(topic.stream_of(NAME, *sys.argv[1:]), owner="benchmark")
