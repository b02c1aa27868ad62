"""More api-servers of a running platform, each with settings of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from embedded import environment, ports
from embedded.home import Home
from include.project import ROOT
from tests.polling import until

PREFIX = "/some/prefix"


@contextmanager
def serving(home: Home, **variables: str) -> Iterator[str]:
    """Starts an api-server behind a path prefix, and yields its address. It ends with the block.

    Args:
        home: The home of the running platform.
        variables: Environment variables, in addition to those of the platform.
    """
    port = _free_port()
    url = f"http://{ports.HOST}:{port}{PREFIX}"
    command = [sys.executable, "-m", "airflow", "api-server", "--host", ports.HOST, "--port", str(port)]
    with (
        open(home.logs / f"api-server-{port}.log", "w") as log,
        subprocess.Popen(
            command,
            env=environment.child(home) | {"AIRFLOW__API__BASE_URL": url} | variables,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            until("the api-server answers", lambda: _answers(url), 240, every_s=0.5)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ports.HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v2/version", timeout=60, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
