"""The drain of Millrace, with every guarantee, called like a task of the DAG; with the current state if asked.

Its arguments are the topic, the format, the number of drains, the number of this one, and ``current`` for the state.
"""

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

    name, encoding, drains, shard, *options = sys.argv[1:]
    stream = replace(topic.stream_of(NAME, name, encoding), drains=int(drains))
    if CURRENT in options:
        stream = replace(stream, key=topic.KEY, current=True)
    drain(stream, owner="benchmark", shard=int(shard))
