"""A TCP proxy that parses messages and can hold one of them, which gives a test an exact moment."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from embedded.ports import HOST

Side = Literal["client", "server"]


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        sender: Its sender.
        label: Its description, which a trap's pattern is matched against, such as ``query COMMIT``.
        data: Its bytes.
    """

    sender: Side
    label: str
    data: bytes


class Trap:
    """Holds the first message that matches, with its connection, until the test releases, drops or cuts it."""

    def __init__(self, pattern: str, skip: int, act: Callable[[Link], None] | None) -> None:
        self._pattern = re.compile(pattern, re.DOTALL | re.IGNORECASE)
        self._skip = skip
        self._act = act
        self._lock = threading.Lock()
        self._sprung = threading.Event()
        self._decided = threading.Event()
        self._verdict: Literal["pass", "swallow", "cut"] = "pass"

    @property
    def sprung(self) -> bool:
        """Whether it holds, or has held, a message."""
        return self._sprung.is_set()

    def wait(self, within_s: float = 30.0) -> None:
        """Waits until it holds a message. Raises AssertionError if none arrives."""
        assert self._sprung.wait(within_s), f"no message matched {self._pattern.pattern!r} within {within_s:g} s"

    def release(self) -> None:
        """Delivers the message, unless it was dropped before. A message that has not arrived yet is not held."""
        self._decide("pass")

    def swallow(self) -> None:
        """Drops the message, and keeps the connection."""
        self._decide("swallow")

    def cut(self) -> None:
        """Drops the message, and resets its connection on both sides."""
        self._decide("cut")

    def offer(self, link: Link, frame: Frame) -> Literal["pass", "swallow", "cut"]:
        """Called for every message; blocks for the one that it holds."""
        with self._lock:
            if self._sprung.is_set() or not self._pattern.match(f"{frame.sender} {frame.label}"):
                return "pass"
            if self._skip > 0:
                self._skip -= 1
                return "pass"
            self._sprung.set()
        if self._act is not None:
            self._act(link)
        else:
            self._decided.wait()
        return self._verdict

    def _decide(self, verdict: Literal["pass", "swallow", "cut"]) -> None:
        with self._lock:
            if not self._decided.is_set():
                self._verdict = verdict
                self._decided.set()


class Link:
    """One connection through a relay."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._sockets: dict[Side, socket.socket] = {"client": client, "server": server}

    def run(self) -> None:
        """Forwards messages in both directions until one side ends."""
        for sender, receiver in (("client", "server"), ("server", "client")):
            threading.Thread(target=self._pump, args=(sender, receiver), daemon=True).start()

    def cut(self) -> None:
        """Resets both sides: data in transit is lost."""
        for one in self._sockets.values():
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._relay.forget(self)

    def hang_up(self) -> None:
        """Ends only the client's side."""
        with suppress(OSError):
            self._sockets["client"].shutdown(socket.SHUT_RDWR)

    def _pump(self, sender: Side, receiver: Side) -> None:
        with suppress(OSError):
            for frame in self.frames(sender):
                self._relay.pause()
                verdict = self._relay.offer(self, frame)
                if verdict == "cut":
                    break
                if verdict == "pass":
                    self._sockets[receiver].sendall(frame.data)
        self._relay.wait_to_show_end()
        self.cut()

    def frames(self, sender: Side) -> Iterator[Frame]:
        """The messages of one side; subclasses parse their protocol."""
        while data := self._sockets[sender].recv(65536):
            yield Frame(sender, "bytes", data)

    def read(self, sender: Side, size: int) -> bytes:
        """Reads exactly ``size`` bytes. Raises OSError at the end of the stream."""
        data = bytearray()
        while len(data) < size:
            part = self._sockets[sender].recv(size - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return bytes(data)

    def answer(self, data: bytes) -> None:
        """Sends the relay's own bytes to the client."""
        self._sockets["client"].sendall(data)


class Relay:
    """A proxy on a port of its own.

    Attributes:
        port: The port for clients.
        target: The server's port; a change applies to new connections.
        latency_s: The delay of each message.
        is_open: Whether it accepts new connections; otherwise it resets them.
    """

    link: type[Link] = Link

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.latency_s = 0.0
        self.is_open = True
        self.log: deque[str] = deque(maxlen=200)
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends_shown = threading.Event()
        self._ends_shown.set()
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._traps: list[Trap] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def trap(self, pattern: str, skip: int = 0, act: Callable[[Link], None] | None = None) -> Trap:
        """Holds the first message, after ``skip`` others, whose sender and label match from their beginning.

        Args:
            pattern: Such as ``client query COMMIT`` or ``server done COMMIT``; case is ignored.
            act: Called instead of waiting for the test; then the message is delivered.
        """
        trap = Trap(pattern, skip, act)
        with self._lock:
            self._traps.append(trap)
        return trap

    def cut(self) -> None:
        """Resets all connections; new ones are accepted."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def freeze(self) -> None:
        """Stops all messages and keeps the connections, like a network that drops all packets."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Continues with the messages."""
        self._flowing.set()

    def hide_ends(self) -> None:
        """Hides from each side that the other has ended, like a machine that vanished."""
        self._ends_shown.clear()

    def hang_up(self) -> None:
        """Ends the clients' connections; after ``hide_ends``, the servers do not notice."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.hang_up()

    def wait_to_show_end(self) -> None:
        """Called before one side notices that the other has ended."""
        self._ends_shown.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Resets and refuses connections for the length of a ``with`` block."""
        self.is_open = False
        self.cut()
        try:
            yield
        finally:
            self.is_open = True

    def reset(self) -> None:
        """Releases everything that it holds, and forwards all messages from then on."""
        with self._lock:
            traps, self._traps = self._traps, []
        for trap in traps:
            trap.cut()
        self.cut()
        self.is_open, self.latency_s = True, 0.0
        self._ends_shown.set()
        self.thaw()

    def close(self) -> None:
        """Ends the relay."""
        self._listener.close()
        self.reset()

    def pause(self) -> None:
        """Called before each message."""
        self._flowing.wait()
        if self.latency_s:
            threading.Event().wait(self.latency_s)

    def offer(self, link: Link, frame: Frame) -> Literal["pass", "swallow", "cut"]:
        """Shows a message to the traps."""
        self.log.append(f"{frame.sender} {frame.label}"[:300])
        for trap in tuple(self._traps):
            if (verdict := trap.offer(link, frame)) != "pass":
                return verdict
        return "pass"

    def forget(self, link: Link) -> None:
        """Removes a connection that has ended."""
        with self._lock:
            self._links.discard(link)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if not self.is_open:
                raise ConnectionRefusedError
            server = socket.create_connection((HOST, self.target), 5)
        except OSError:
            with suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = self.link(self, client, server)
        with self._lock:
            self._links.add(link)
        link.run()


class PostgresLink(Link):
    """A connection of PostgreSQL's protocol, version 3.

    Labels: the client's ``startup``, ``query <sql>``, ``copy data of <sql>`` and ``copy rest of <sql>`` (the two halves
    of one message with rows), ``copy end of <sql>``; the server's ``done <sql>`` (the statement has been executed),
    ``failed <sql>``, ``copy ready <sql>``. Other messages have the letter of their type.
    """

    _NO_ENCRYPTION = (80877103, 80877104)

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        super().__init__(relay, client, server)
        self._statement = ""

    def frames(self, sender: Side) -> Iterator[Frame]:
        if sender == "client":
            yield self._startup()
        while True:
            head = self.read(sender, 5)
            body = self.read(sender, struct.unpack("!I", head[1:])[0] - 4)
            kind = chr(head[0])
            label = self._clients(kind, body) if sender == "client" else self._servers(kind)
            if kind == "d" and sender == "client":
                middle = len(body) // 2
                yield Frame(sender, f"copy data of {self._statement}", head + body[:middle])
                yield Frame(sender, f"copy rest of {self._statement}", body[middle:])
            else:
                yield Frame(sender, label, head + body)

    def _startup(self) -> Frame:
        while True:
            head = self.read("client", 8)
            size, code = struct.unpack("!II", head)
            body = self.read("client", size - 8)
            if code not in self._NO_ENCRYPTION:
                return Frame("client", "startup", head + body)
            self.answer(b"N")

    def _clients(self, kind: str, body: bytes) -> str:
        match kind:
            case "Q":
                self._statement = body.rstrip(b"\0").decode(errors="replace")
                return f"query {self._statement}"
            case "P":
                self._statement = body.split(b"\0")[1].decode(errors="replace")
                return f"query {self._statement}"
            case "c":
                return f"copy end of {self._statement}"
        return kind

    def _servers(self, kind: str) -> str:
        words = {"C": "done", "E": "failed", "G": "copy ready"}
        return f"{words[kind]} {self._statement}" if kind in words else kind


class PostgresRelay(Relay):
    """A proxy before PostgreSQL."""

    link = PostgresLink


_KAFKA_APIS = {0: "produce", 1: "fetch", 2: "list offsets", 3: "metadata", 8: "offset commit", 10: "find coordinator"}


class KafkaLink(Link):
    """A connection of Kafka's protocol. Labels: ``<api> request`` and ``<api> reply``, such as ``fetch request``."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        super().__init__(relay, client, server)
        self._requests: dict[int, str] = {}

    def frames(self, sender: Side) -> Iterator[Frame]:
        while True:
            head = self.read(sender, 4)
            body = self.read(sender, struct.unpack("!I", head)[0])
            if sender == "client":
                key, _, number = struct.unpack("!hhi", body[:8])
                self._requests[number] = api = _KAFKA_APIS.get(key, str(key))
                yield Frame(sender, f"{api} request", head + body)
            else:
                (number,) = struct.unpack("!i", body[:4])
                yield Frame(sender, f"{self._requests.pop(number, 'unknown')} reply", head + body)


class KafkaRelay(Relay):
    """A proxy before Kafka; a broker's listener must advertise its address."""

    link = KafkaLink
