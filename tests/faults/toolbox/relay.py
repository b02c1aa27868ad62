"""A TCP proxy that knows where a message begins and ends and can hold one: there the test has its exact moment."""

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
        sender: Who sent it.
        label: What it is, in words that a trap's pattern is matched against, such as ``query COMMIT``.
        data: Its bytes.
    """

    sender: Side
    label: str
    data: bytes


class Trap:
    """Holds the first message that matches, and with it its connection, until the test says how it goes on."""

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
        """Waits until it holds a message. Raises AssertionError when none comes."""
        assert self._sprung.wait(within_s), f"no message matched {self._pattern.pattern!r} within {within_s:g} s"

    def release(self) -> None:
        """The message goes on, unless something else was decided before; one that is still to come is not held."""
        self._decide("pass")

    def swallow(self) -> None:
        """The message is lost, the connection stays."""
        self._decide("swallow")

    def cut(self) -> None:
        """The message is lost, and its connection is reset on both sides."""
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
        """Carries messages both ways until one side is gone."""
        for sender, receiver in (("client", "server"), ("server", "client")):
            threading.Thread(target=self._pump, args=(sender, receiver), daemon=True).start()

    def cut(self) -> None:
        """Resets both sides at once: whatever was under way is lost."""
        for one in self._sockets.values():
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._relay.forget(self)

    def hang_up(self) -> None:
        """Ends the client's side alone."""
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
        self._relay.wait_to_tell()
        self.cut()

    def frames(self, sender: Side) -> Iterator[Frame]:
        """The messages of one side; a protocol of its own overrides it."""
        while data := self._sockets[sender].recv(65536):
            yield Frame(sender, "bytes", data)

    def read(self, sender: Side, size: int) -> bytes:
        """Exactly so many bytes. Raises OSError at the end of the stream."""
        data = bytearray()
        while len(data) < size:
            part = self._sockets[sender].recv(size - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return bytes(data)

    def answer(self, data: bytes) -> None:
        """Bytes of the relay's own to the client."""
        self._sockets["client"].sendall(data)


class Relay:
    """A proxy on a port of its own.

    Attributes:
        port: Where clients connect.
        target: The server's port; a change counts for connections from then on.
        latency_s: What each message is delayed by, on its way.
        is_open: Whether new connections are taken; refused ones are reset at once.
    """

    link: type[Link] = Link

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.latency_s = 0.0
        self.is_open = True
        self.log: deque[str] = deque(maxlen=200)
        self._flowing = threading.Event()
        self._flowing.set()
        self._telling = threading.Event()
        self._telling.set()
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._traps: list[Trap] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def trap(self, pattern: str, skip: int = 0, act: Callable[[Link], None] | None = None) -> Trap:
        """Holds the first message, after ``skip`` others, whose sender and label match from their beginning.

        Args:
            pattern: Such as ``client query COMMIT`` or ``server done COMMIT``; case does not count.
            act: Called instead of waiting for the test; the message then goes on.
        """
        trap = Trap(pattern, skip, act)
        with self._lock:
            self._traps.append(trap)
        return trap

    def cut(self) -> None:
        """Resets all connections; new ones are taken."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def freeze(self) -> None:
        """Messages stop, connections stay: a network that drops everything."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Messages go on."""
        self._flowing.set()

    def hide_ends(self) -> None:
        """From here on neither side learns of the other's end: a machine that vanished without a word."""
        self._telling.clear()

    def hang_up(self) -> None:
        """The clients see their connections break; the servers, after ``hide_ends``, do not."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.hang_up()

    def wait_to_tell(self) -> None:
        """Called before one side learns that the other has ended."""
        self._telling.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        """The length of a ``with`` block without the server: connections are reset and refused."""
        self.is_open = False
        self.cut()
        try:
            yield
        finally:
            self.is_open = True

    def reset(self) -> None:
        """Lets everything go that it holds: from here on it is a wire."""
        with self._lock:
            traps, self._traps = self._traps, []
        for trap in traps:
            trap.cut()
        self.cut()
        self.is_open, self.latency_s = True, 0.0
        self._telling.set()
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
        """A connection is over."""
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
    of one message of rows), ``copy end of <sql>``; the server's ``done <sql>`` (the statement has been executed),
    ``failed <sql>``, ``copy ready <sql>``. Others have their type's letter.
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
        self._asked: dict[int, str] = {}

    def frames(self, sender: Side) -> Iterator[Frame]:
        while True:
            head = self.read(sender, 4)
            body = self.read(sender, struct.unpack("!I", head)[0])
            if sender == "client":
                key, _, number = struct.unpack("!hhi", body[:8])
                self._asked[number] = api = _KAFKA_APIS.get(key, str(key))
                yield Frame(sender, f"{api} request", head + body)
            else:
                (number,) = struct.unpack("!i", body[:4])
                yield Frame(sender, f"{self._asked.pop(number, 'unasked')} reply", head + body)


class KafkaRelay(Relay):
    """A proxy before Kafka; a broker's listener must advertise its address."""

    link = KafkaLink
