"""One request on its way through the emulator; changes when handlers need to know more of a request."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING

from pipeline.emulator import api_errors
from pipeline.emulator.files import StoredFile
from pipeline.emulator.reply import Refusal, Reply, Reset
from pipeline.emulator.routing import Target

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

Work = Callable[[], Awaitable[Reply]]
"""What a call does once no fault stands in its way."""


@dataclass(slots=True)
class Exchange:
    """A request, what is known of it so far, and the means to read it or break it off."""

    request: "BaseRequest"
    target: Target
    routes: tuple[str, ...]
    """Names by which faults and the ledger know the call; the first is the main one."""
    project: str = ""
    identity: str = ""
    """Names the request however its order or its random names fall; equal for repeated attempts."""
    attempt: int = 0
    match_texts: list[str] = field(default_factory=list)
    """What a fault's ``match`` looks into."""
    files: list[StoredFile] = field(default_factory=list)
    """Files that a generate names, or the one that an upload made."""
    bytes_received: int = 0
    cut_after_bytes: int | None = None
    """A fault breaks the body off here."""
    cut_durably: bool = True
    fault: str = ""
    """The kind of fault that struck."""

    @property
    def base_url(self) -> str:
        """The origin under which the client reached us."""
        return f"http://{self.request.host}"

    @property
    def content_length(self) -> int | None:
        """The announced size of the body."""
        return self.request.content_length

    async def expect_body(self) -> None:
        """Tell a client that waits for it (curl, over 1 MiB) to go on and send its body."""
        if self.request.headers.get("Expect", "").lower() == "100-continue":
            await self.request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        await self.expect_body()
        while block := await self.request.content.readany():
            self.bytes_received += len(block)
            if self.cut_after_bytes is not None and self.bytes_received >= self.cut_after_bytes:
                surplus = self.bytes_received - self.cut_after_bytes
                yield block[: len(block) - surplus]
                raise Reset
            yield block

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body; one over the limit is read to its end, kept no longer, and refused."""
        kept: list[bytes] = []
        size_bytes = 0
        async for block in self.blocks():
            size_bytes += len(block)
            if size_bytes <= limit_bytes:
                kept.append(block)
            else:
                kept.clear()
        if size_bytes > limit_bytes:
            raise Refusal(api_errors.payload_too_large(limit_bytes))
        return b"".join(kept)

    def reset(self) -> None:
        """Break the connection with a RST: no FIN, and nothing that is still unsent goes out."""
        transport = self.request.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
