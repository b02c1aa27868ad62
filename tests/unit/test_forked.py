"""The forked process, as a copy of a process that was used before."""

from __future__ import annotations

import gc
import os

from include.forked import Child


class Cycle:
    """Cyclic garbage that writes the id of the process that collects it."""

    def __init__(self, sent: int) -> None:
        self.sent, self.me = sent, self

    def __del__(self) -> None:
        os.write(self.sent, str(os.getpid()).encode())


def test_a_child_never_collects_its_parents_garbage() -> None:
    """It can include a Kafka client, whose destructor would wait forever for threads that the child does not have."""

    def work(out: int) -> None:
        gc.collect()
        os.write(out, b"done")

    reading, sent = os.pipe()
    gc.collect()
    Cycle(sent)
    child = Child(work)
    try:
        assert child.read() == b"done"
    finally:
        child.close()
        child.kill()
    assert gc.isenabled()
    gc.collect()
    assert int(os.read(reading, 100)) == os.getpid()
    os.close(reading)
    os.close(sent)
