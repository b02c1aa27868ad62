"""The ports of one platform: the usual ones when they are free, else free ones, remembered by its home."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from include.errors import UserError

USUAL: Mapping[str, int] = {
    "api": 8080,
    "kafka": 9092,
    "kafka_controller": 9093,
    "postgres": 5432,
    "supervisor": 9001,
}
HOST = "127.0.0.1"
# Far enough apart that the ports of one platform, counted up, do not meet another's usual ones.
_STEP = 10


def choose(remembered: Mapping[str, int], hold: Callable[[int], bool] = lambda port: True) -> dict[str, int]:
    """A port for every listener, none of them in use.

    A port named by `MILLRACE_PORT_<NAME>` is taken or refused with UserError; a remembered one is kept if it is free.

    Args:
        remembered: The ports of the last start, by name.
        hold: Asked for every port that would be chosen; whether it may be.
    """
    chosen: dict[str, int] = {}
    for name, usual in USUAL.items():
        variable = f"MILLRACE_PORT_{name.upper()}"
        if wanted := os.environ.get(variable):
            chosen[name] = _demanded(wanted, variable, set(chosen.values()))
            continue
        taken = set(chosen.values())
        candidates = (port for port in (remembered.get(name, usual), *_near(usual)) if port not in taken)
        chosen[name] = next(port for port in candidates if is_free(port) and hold(port))
    return chosen


class Hold:
    """Ports that are kept from other platforms, by files that are locked until `close` or the end of this process."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def alone(self, port: int) -> bool:
        """Keep a port, unless anybody keeps it already. Gives whether it is kept."""
        return self._lock(port, fcntl.LOCK_EX)

    def share(self, ports: Iterable[int]) -> None:
        """Keep these ports together with others who share them; what was kept alone no longer is."""
        for port in ports:
            self._lock(port, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of all of them."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _lock(self, port: int, operation: int) -> bool:
        file = self._files.pop(port, None)
        try:
            if file is None:
                file = os.open(Path(tempfile.gettempdir(), f"millrace-port-{port}"), os.O_RDONLY | os.O_CREAT, 0o644)
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except OSError as error:
            if file is not None:
                os.close(file)
            # Without a temporary directory ports cannot be kept; they are free all the same.
            return not isinstance(error, BlockingIOError)
        self._files[port] = file
        return True


@contextmanager
def held(remembered: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """`choose`, with the ports kept from other platforms that choose theirs.

    They are shared with the platform's supervisor, which keeps them for as long as it lives; see `supervisord.py`.
    """
    with closing(Hold()) as hold:
        chosen = choose(remembered, hold.alone)
        hold.share(chosen.values())
        yield chosen


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


def is_listening(pid: int, port: int) -> bool:
    """Whether this very process listens on the port, and not somebody else's."""
    if is_free(port):
        # Who listens is found among all sockets of the machine, of which there may be thousands.
        return False
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port for one in connections)


def _demanded(text: str, variable: str, taken: set[int]) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UserError(f"{variable}={text} is not a port.", "Give a number from 1 to 65535.")
    if int(text) in taken or not is_free(int(text)):
        raise UserError(
            f"Port {text}, which {variable} asks for, is in use.",
            f"End its user, name another port, or unset {variable} to have a free one chosen.",
        )
    return int(text)


def _near(usual: int) -> Iterator[int]:
    """The usual port, then those after it.

    None of the range from which the kernel takes the ports of outgoing connections: such a connection, made while the
    platform is down or a component restarts, would keep the component from listening.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32768
    yield from range(usual, max(first, usual + 1), _STEP)
    yield from range(first, 65536)
