"""What goes over the wire, seen from the other end: listeners, a recording proxy, and a server that says anything."""

import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

REQUEST_HEAD = re.compile(rb"(?:GET|POST|DELETE|PUT|PATCH|HEAD|CONNECT) (\S+) HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*\r\n")


class Listener:
    """Accepts on loopback and hands each connection to ``serve`` in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with suppress(OSError):
            whole = self._context.wrap_socket(client, server_side=True) if self._context else client
            with whole:
                self._serve(whole)

    def close(self) -> None:
        """Accept no more."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


class Stranger:
    """A host that nobody should talk to: keeps whatever arrives, refuses it, and closes."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.received: list[bytes] = []
        self.listener = Listener(self._serve, context)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.listener.port}"

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(2)
        self.received.append(client.recv(65536))
        client.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@contextmanager
def stranger(context: ssl.SSLContext | None = None) -> Iterator[Stranger]:
    """A ``Stranger`` for one test."""
    one = Stranger(context)
    try:
        yield one
    finally:
        one.listener.close()


class Recorder:
    """A TCP proxy in front of a server: keeps the bytes of each connection, either way, and passes resets on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent: list[bytearray] = []
        self.listener = Listener(self._serve)
        self.url = f"http://127.0.0.1:{self.listener.port}"

    def heads(self) -> list[tuple[bytes, bytes]]:
        """(target, whole head) of every request."""
        return [(found[1], found[0]) for stream in self.sent for found in REQUEST_HEAD.finditer(bytes(stream))]

    def _serve(self, client: socket.socket) -> None:
        kept = bytearray()
        self.sent.append(kept)
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=self._pump, args=(server, client, bytearray()), daemon=True)
            back.start()
            self._pump(client, server, kept)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(65536):
                kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def recorder(base_url: str) -> Iterator[Recorder]:
    """A ``Recorder`` in front of ``base_url``."""
    one = Recorder(int(base_url.rpartition(":")[2]))
    try:
        yield one
    finally:
        one.listener.close()


Answer = bytes | dict[str, Any]
"""A raw reply, or JSON for a reply of status 200."""


class Liar:
    """A server of the API that answers each call with whatever ``answer`` (method, path, body) says."""

    def __init__(self, answer: Callable[[str, str, bytes], Answer]) -> None:
        self._answer = answer
        self.listener = Listener(self._serve)
        self.url = f"http://127.0.0.1:{self.listener.port}"

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                length = 0
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                client.sendall(whole_reply(self._answer(method, path, stream.read(length))))


def whole_reply(answer: Answer, status: str = "200 OK", *headers: bytes) -> bytes:
    """``answer`` as HTTP; bytes that begin like HTTP are taken as they are."""
    if isinstance(answer, bytes) and answer.startswith(b"HTTP/"):
        return answer
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    head = (f"HTTP/1.1 {status}".encode(), b"Content-Type: application/json", f"Content-Length: {len(body)}".encode())
    return b"\r\n".join((*head, *headers)) + b"\r\n\r\n" + body


@contextmanager
def liar(answer: Callable[[str, str, bytes], Answer]) -> Iterator[str]:
    """A ``Liar``; gives its base URL."""
    one = Liar(answer)
    try:
        yield one.url
    finally:
        one.listener.close()
