"""A pooler like pgbouncer in transaction mode: clients get a server connection for one transaction each.

Settings of a client's session do not survive its transaction, and its next one has another backend. Like pgbouncer
with ``ignore_startup_parameters = options``, it drops the options of a client's startup, and gives a backend
the application name of the client that it is lent to.
"""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
from contextlib import suppress

from embedded.ports import HOST

_NO_ENCRYPTION = (80877103, 80877104)
_LEND_WITHIN_S = 20.0


class Pooler:
    """A pool before a PostgreSQL server; each new client adds a connection to it.

    Attributes:
        port: The port for clients.
        switches: How often a transaction had another backend than the client's previous one.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._free: queue.Queue[socket.socket] = queue.Queue()
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.switches = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accepts no more clients, and closes the connections that are not in use."""
        self._listener.close()
        with suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, queue.Empty):
            name = self._log_in(client)
            used: socket.socket | None = None
            while (request := _message(client))[:1] != b"X":
                server = self._alive()
                self.switches += used is not None and server is not used
                used = server
                _query(server, b"SET application_name = '%s'" % name)
                server.sendall(request)
                try:
                    _until_idle(client, server)
                except BaseException:
                    # In the middle of a transaction: no other client may get this connection.
                    server.close()
                    raise
                self._free.put(server)

    def _log_in(self, client: socket.socket) -> bytes:
        """Adds a connection to the pool, with the client's own login. Returns its application_name."""
        size, code = struct.unpack("!II", _exactly(client, 8))
        while code in _NO_ENCRYPTION:
            client.sendall(b"N")
            size, code = struct.unpack("!II", _exactly(client, 8))
        names = _exactly(client, size - 8).rstrip(b"\0").split(b"\0")
        kept = [part for pair in zip(names[::2], names[1::2], strict=True) if pair[0] != b"options" for part in pair]
        body = struct.pack("!I", code) + b"\0".join(kept) + b"\0\0"
        server = socket.create_connection((HOST, self._target), 5)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sendall(struct.pack("!I", len(body) + 4) + body)
        _until_idle(client, server)
        self._free.put(server)
        return dict(zip(names[::2], names[1::2], strict=True)).get(b"application_name", b"")

    def _alive(self) -> socket.socket:
        """The connection that has been free for longest, of those that the server has not ended."""
        while True:
            server = self._free.get(timeout=_LEND_WITHIN_S)
            if not select.select([server], [], [], 0)[0]:
                return server
            server.close()


def _until_idle(client: socket.socket, server: socket.socket) -> None:
    """Carries messages both ways until the server is outside of a transaction."""
    while True:
        ready, _, _ = select.select([client, server], [], [])
        if server in ready:
            message = _message(server)
            client.sendall(message)
            if message[:1] == b"Z" and message[5:6] == b"I":
                return
        if client in ready:
            server.sendall(_message(client))


def _query(server: socket.socket, statement: bytes) -> None:
    """Executes a statement of the pooler's own."""
    server.sendall(b"Q" + struct.pack("!I", len(statement) + 5) + statement + b"\0")
    while _message(server)[:1] != b"Z":
        pass


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return bytes(data)
