"""A TCP proxy on loopback that does to connections what networks do: delays, stalls, slices, cuts and resets them."""

import asyncio
import random
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

READ_BYTES = 64 * 1024

Direction = Literal["up", "down"]


class Toxic(NamedTuple):
    """One trouble, for bytes that go up (to the server) or down (to the client)."""

    kind: Literal["latency", "reset", "blackhole", "slow", "cut", "slice"]
    """``blackhole`` lets nothing through either way for ``seconds`` and resets; ``cut`` closes as if all were said."""
    direction: Direction = "down"
    after_bytes: int | tuple[int, int] = 0
    """It strikes when so many bytes have passed on the connection; a range is drawn from the seed."""
    seconds: float = 0.0
    """Of a latency, for each piece, or of a blackhole."""
    bytes_per_second: float = 1e6
    piece_bytes: int = 1
    """What a slice leaves of each piece."""
    rate: float = 1.0
    """The share of connections that it may strike."""
    first: int | None = None
    """At most so many strikes of those that end a connection."""


class _Ends(Exception):
    """The connection ends: with a RST after ``seconds`` of silence, or with a FIN where ``seconds`` is None."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Proxy:
    """Forwards to one server. Which connection meets what follows from the seed and the connection's number."""

    def __init__(self, target: str, toxics: tuple[Toxic, ...], seed: int) -> None:
        url = urlsplit(target)
        self._target = (url.hostname or "", url.port or 80)
        self._toxics = toxics
        self._seed = seed
        self.base_url = ""
        self.connections = 0
        self.struck: Counter[str] = Counter()
        """Strikes of each kind."""
        self.sent_bytes: Counter[Direction] = Counter()
        """Bytes that came in from either side, whether or not they were passed on."""

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Forward until ``stop``."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.base_url = f"http://{host}:{port}"
        started.set()
        await stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance = random.Random(f"{self._seed} {self.connections}")
        self.connections += 1
        mine = [
            toxic._replace(after_bytes=chance.randint(*_range(toxic.after_bytes)))
            for toxic in self._toxics
            if chance.random() < toxic.rate
        ]
        upstream, server = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump("up", reader, server, mine))
                both.create_task(self._pump("down", upstream, writer, mine))
        except* _Ends as ends:
            waits = [end.seconds for end in ends.exceptions if isinstance(end, _Ends) and end.seconds is not None]
            if waits:
                await asyncio.sleep(max(waits))
                _reset(writer, server)
        except* OSError:
            _reset(writer, server)
        finally:
            writer.close()
            server.close()

    async def _pump(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, toxics: list[Toxic]
    ) -> None:
        mine = [toxic for toxic in toxics if toxic.direction == direction]
        passed = 0
        while data := await reader.read(READ_BYTES):
            self.sent_bytes[direction] += len(data)
            for piece in _pieces(data, mine):
                for toxic in mine:
                    await self._strike(toxic, passed, piece, writer)
                writer.write(piece)
                await writer.drain()
                passed += len(piece)
        raise _Ends(None)

    async def _strike(self, toxic: Toxic, passed: int, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if toxic.kind == "slice" or passed + len(piece) <= _range(toxic.after_bytes)[0]:
            return
        if toxic.kind in ("latency", "slow"):
            self.struck[toxic.kind] += 1
            await asyncio.sleep(toxic.seconds if toxic.kind == "latency" else len(piece) / toxic.bytes_per_second)
            return
        if toxic.first is not None and self.struck[toxic.kind] >= toxic.first:
            return
        self.struck[toxic.kind] += 1
        writer.write(piece[: max(0, _range(toxic.after_bytes)[0] - passed)])
        await asyncio.sleep(0.01)  # lets those bytes arrive before a RST would discard them
        raise _Ends({"reset": 0.0, "blackhole": toxic.seconds}.get(toxic.kind))


def _reset(*ends: asyncio.StreamWriter) -> None:
    for end in ends:
        end.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()


def _range(after_bytes: int | tuple[int, int]) -> tuple[int, int]:
    return after_bytes if isinstance(after_bytes, tuple) else (after_bytes, after_bytes)


def _pieces(data: bytes, toxics: list[Toxic]) -> Iterator[bytes]:
    step = min((toxic.piece_bytes for toxic in toxics if toxic.kind == "slice"), default=len(data))
    return (data[start : start + step] for start in range(0, len(data), step))


@contextmanager
def proxy(target: str, *toxics: Toxic, seed: int = 0) -> Iterator[Proxy]:
    """A proxy before ``target`` in a thread of its own, ended when the context is."""
    one = Proxy(target, toxics, seed)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    def work() -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(one.serve(started, stop))

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    try:
        yield one
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
