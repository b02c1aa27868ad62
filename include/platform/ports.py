"""The ports of one platform: the usual ones when they are free, else free ones, remembered by its home."""

import os
import socket
from collections.abc import Mapping

from include.errors import UserError

USUAL: Mapping[str, int] = {
    "api": 8080,
    "kafka": 9092,
    "kafka_controller": 9093,
    "postgres": 5432,
    "supervisor": 9001,
}
HOST = "127.0.0.1"


def choose(remembered: Mapping[str, int]) -> dict[str, int]:
    """A port for every listener, none of them in use.

    A port named by `MILLRACE_PORT_<NAME>` is taken or refused with UserError; a remembered one is kept if it is free.
    """
    chosen: dict[str, int] = {}
    for name, usual in USUAL.items():
        variable = f"MILLRACE_PORT_{name.upper()}"
        if wanted := os.environ.get(variable):
            chosen[name] = _demanded(wanted, variable, set(chosen.values()))
            continue
        candidates = (remembered.get(name, usual), usual)
        taken = set(chosen.values())
        chosen[name] = next((port for port in candidates if port not in taken and is_free(port)), 0) or _any(taken)
    return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on the port, on loopback and on all addresses alike."""
    for address in (HOST, ""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def _demanded(text: str, variable: str, taken: set[int]) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UserError(f"{variable}={text} is not a port.", "Give a number from 1 to 65535.")
    if int(text) in taken or not is_free(int(text)):
        raise UserError(
            f"Port {text}, which {variable} asks for, is in use.",
            f"End its user, name another port, or unset {variable} to have a free one chosen.",
        )
    return int(text)


def _any(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
