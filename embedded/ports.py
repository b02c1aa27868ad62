"""The ports of one platform: the usual ones when they are free, else free ones, which the home stores."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from include.error_codes import Code
from include.errors import UserError

USUAL: Mapping[str, int] = {
    "api": 8080,
    "kafka": 9092,
    "kafka_controller": 9093,
    "postgres": 5432,
    "schema_registry": 8081,
    "supervisor": 9001,
}
HOST = "127.0.0.1"
# Far enough apart that the replacement of one port is not the usual port of another listener.
_STEP = 10


def choose(remembered: Mapping[str, int], hold: Callable[[int], bool] = lambda port: True) -> dict[str, int]:
    """Choose a free port for every listener.

    A port that `MILLRACE_PORT_<NAME>` sets is used, or UserError is raised when it is in use. A port of the last start
    is used again if it is free.

    Args:
        remembered: The ports of the last start, by name.
        hold: Called with each port before it is chosen; it returns whether the port can be used.
    """
    chosen: dict[str, int] = {}
    for name, usual in USUAL.items():
        variable = f"MILLRACE_PORT_{name.upper()}"
        if wanted := os.environ.get(variable):
            chosen[name] = _configured(wanted, variable, set(chosen.values()))
            continue
        taken = set(chosen.values())
        candidates = (port for port in (remembered.get(name, usual), *_near(usual)) if port not in taken)
        chosen[name] = next(port for port in candidates if is_free(port) and hold(port))
    return chosen


class Hold:
    """Ports that other platforms cannot choose: each has a file, locked until `close` or the end of this process."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def acquire(self, port: int) -> bool:
        """Lock a port for this process alone. Returns False when another process has locked it."""
        return self._lock(port, fcntl.LOCK_EX)

    def share(self, ports: Iterable[int]) -> None:
        """Lock these ports with a shared lock, so that another process, too, can lock them with `share`."""
        for port in ports:
            self._lock(port, fcntl.LOCK_SH)

    def close(self) -> None:
        """Release all locks."""
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
            # Without a temporary directory, ports cannot be locked, but they can be used.
            return not isinstance(error, BlockingIOError)
        self._files[port] = file
        return True


@contextmanager
def held(remembered: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """`choose`, with the chosen ports locked against other platforms.

    The platform's supervisor shares the locks and keeps them until it ends; see `supervisord.py`.
    """
    with closing(Hold()) as hold:
        chosen = choose(remembered, hold.acquire)
        hold.share(chosen.values())
        yield chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on the port, both on loopback and on all addresses."""
    for address in (HOST, ""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def is_listening(pid: int, port: int) -> bool:
    """Whether this process, and not another one, listens on the port."""
    if is_free(port):
        # A cheap check first: psutil reads all sockets of the machine, of which there may be thousands.
        return False
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port for one in connections)


def _configured(text: str, variable: str, taken: set[int]) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UserError(
            f"{variable}={text} is not a port.", "Set it to a number from 1 to 65535.", code=Code.INVALID_PORT
        )
    if int(text) in taken or not is_free(int(text)):
        raise UserError(
            f"Port {text}, which {variable} sets, is in use.",
            f"End the program that uses it, set another port, or unset {variable} to let Millrace choose a free one.",
            code=Code.PORT_IN_USE,
        )
    return int(text)


def _near(usual: int) -> Iterator[int]:
    """The usual port, then others in the order in which to try them.

    Ports of outgoing connections come last: the kernel may give one of them to a connection while the platform is down
    or a component restarts, and the component could then not listen.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32768
    yield from range(usual, max(first, usual + 1), _STEP)
    yield from range(first, 65536)
