"""Receivers of messages on this machine: an HTTP server and a mail server, which keep what they receive."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpReceiver(ThreadingHTTPServer):
    """Keeps the JSON of each POST.

    Attributes:
        bodies: What was posted, in order; also what was answered with an error.
        status: The status of the next answers.
        gate: An answer waits until it is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Poster)
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Poster(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, HttpReceiver)
        receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        receiver.gate.wait(60)
        self.send_response(receiver.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


class MailReceiver(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs to hand over a mail.

    Attributes:
        mails: What was received, in order.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mailbox)
        self.mails: list[EmailMessage] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Mailbox(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        receiver = self.server
        assert isinstance(receiver, MailReceiver)
        self._answer("220 ready")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self._answer("354 go on")
                receiver.mails.append(self._mail())
            elif command == b"QUIT":
                self._answer("221 bye")
                return
            self._answer("250 ok")

    def _mail(self) -> EmailMessage:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        return email.message_from_bytes(b"".join(lines), EmailMessage, policy=email.policy.default)

    def _answer(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serves in a thread for a ``with`` block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
