"""What open pages cost a landing stream on the same machine.

Three pages are open, as in a browser elsewhere: *Models*, *Streams* and a stream, each fetched again every 5 seconds.
The rate of landing with and without them alternates, and so does the CPU time of the platform while nothing lands.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from statistics import median

import httpx
import psutil

from benchmarks import figures, landing
from benchmarks.figures import Spread
from benchmarks.peers import topic as topics
from embedded import processes
from embedded.environment import api_url
from embedded.home import Home
from include.monitoring import sample
from include.warehouse.connection import connected

PAGES = ("models", "streams", "streams/vehicle_positions")
# As in pages.js.
EVERY_S = 5.0
# How long the CPU time of the idle platform is measured, with and without open pages.
IDLE_S = 20.0


def main(json_path: str | None, events: int, repetitions: int) -> None:
    """Measures both, prints the figures, and writes them to ``json_path``."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    shares: dict[bool, list[float]] = {False: [], True: []}
    events -= events % topics.PARTITIONS
    ours = landing.PEERS[landing.OURS]
    with connected("millrace bench open-pages") as connection:
        # Without a sample, there are no streams to show.
        sample.sample(connection)
        connection.commit()
    with session() as client, topics.filled(events) as topic, landing.observing() as observer:
        # The first request imports the app, and the first drain compiles its modules.
        with opened(client):
            landing.land(ours, topic, events, observer)
        for repetition in range(repetitions):
            for is_open in (False, True) if repetition % 2 else (True, False):
                with opened(client) if is_open else nullcontext():
                    shares[is_open].append(_busy())
                    found = landing.land(ours, topic, events, observer)
                    rates[is_open].append(found.rows_per_s)
                figures.progress.print(
                    f"  {repetition + 1}. {'open' if is_open else 'closed'}: {rates[is_open][-1]:,.0f} rows/s, "
                    f"{shares[is_open][-1]:.2%} of the cores while idle"
                )
    cost = median(after - before for before, after in zip(shares[False], shares[True], strict=True))
    ratio = median(after / before for before, after in zip(rates[False], rates[True], strict=True))
    spreads = {is_open: Spread.of(found) for is_open, found in rates.items()}
    figures.show(
        f"Landing {events:,} events while {len(PAGES)} pages are closed or open, {repetitions} repetitions",
        ["pages", "rows/s", "min", "max", "cores in use while idle"],
        [
            (
                "open" if is_open else "closed",
                f"{spread.median:,.0f}",
                f"{spread.min:,.0f}",
                f"{spread.max:,.0f}",
                f"{median(shares[is_open]):.2%}",
            )
            for is_open, spread in spreads.items()
        ],
        [
            f"Open pages cost {cost:.2%} of the machine's {psutil.cpu_count()} cores. The median of the ratios of two "
            f"rates that were measured one after the other is {ratio:.3f}."
        ],
    )
    figures.write(
        json_path,
        {"open": spreads[True].__dict__, "closed": spreads[False].__dict__, "cost": {"cpu_share": cost}},
        {"rate": ratio},
        events=events,
        repetitions=repetitions,
    )


@contextmanager
def session() -> Iterator[httpx.Client]:
    """A client of the running api-server, signed in as admin."""
    home = Home.current()
    url = api_url(home)
    login = {"username": "admin", "password": home.password}
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"accept": "text/html"}) as client:
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


@contextmanager
def opened(client: httpx.Client) -> Iterator[None]:
    """The pages are open during the block."""
    ended = threading.Event()
    failed: list[int] = []

    def keep_open(page: str) -> None:
        while not ended.wait(EVERY_S):
            answer = client.get(f"/millrace/{page}")
            if answer.is_error:
                failed.append(answer.status_code)

    threads = [threading.Thread(target=keep_open, args=(page,)) for page in PAGES]
    for page in PAGES:
        client.get(f"/millrace/{page}").raise_for_status()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if failed:
        raise RuntimeError(f"pages answered with status {failed[0]}")


def _busy() -> float:
    """The share of all cores that the platform's processes use, measured over ``IDLE_S``."""
    before, began = _cpu_s(), time.monotonic()
    time.sleep(IDLE_S)
    return (_cpu_s() - before) / (time.monotonic() - began) / (psutil.cpu_count() or 1)


def _cpu_s() -> float:
    """The CPU time of the platform's processes, also of those that have ended, in seconds."""
    found = 0.0
    for process in processes.of(Home.current()):
        with suppress(psutil.Error):
            times = process.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found
