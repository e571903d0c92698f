"""Faults of connections and of the bytes on them; changes when an answer can be spoilt in another way."""

import asyncio
import functools
import struct
import zlib

from pipeline.emulator import api_errors
from pipeline.emulator.fault_kinds.registry import Strike, kind
from pipeline.emulator.reply import HTML_TYPE, Delivery, Reply, Reset

MEBIBYTE = 1024 * 1024
TRUNCATIONS: dict[str, Delivery] = {
    "content_length": "cut_content_length",
    "chunked": "cut_chunked",
    "close": "cut_close",
}


@kind("reset_before")
async def _reset_before(strike: Strike) -> Reply:  # noqa: ARG001 - a kind's signature
    """No work is done."""
    raise Reset


@kind("reset_after")
async def _reset_after(strike: Strike) -> Reply:
    """The work is done and paid, and its answer is lost."""
    await strike.work()
    raise Reset


@kind("reset_during")
async def _reset_during(strike: Strike) -> Reply:
    reply = await strike.work()
    reply.delivery = "cut_reset"
    return reply


@kind("slow")
async def _slow(strike: Strike) -> Reply:
    await asyncio.sleep(strike.fault.seconds)
    return await strike.work()


@kind("hang")
async def _hang(strike: Strike) -> Reply:
    """Ends only when the client leaves or the server stops."""
    await asyncio.Event().wait()
    return await strike.work()


@kind("slow_loris")
async def _slow_loris(strike: Strike) -> Reply:
    reply = await strike.work()
    reply.delivery = "drip"
    return reply


@kind("truncated_json")
async def _truncated_json(strike: Strike) -> Reply:
    """Half of the body; with ``framing = "close"`` the client's HTTP layer cannot notice."""
    reply = await strike.work()
    reply.delivery = TRUNCATIONS[strike.fault.framing]
    return reply


@kind("html_200")
async def _html_200(strike: Strike) -> Reply:
    """A proxy's page in the answer's place; the work was done."""
    await strike.work()
    page = api_errors.html_page(200, "Please sign in to the network")
    return Reply(body=page.body, content_type=HTML_TYPE)


@kind("empty_body")
async def _empty_body(strike: Strike) -> Reply:
    await strike.work()
    return Reply()


@kind("gzip_bomb")
async def _gzip_bomb(strike: Strike) -> Reply:
    await strike.work()
    bomb = await asyncio.to_thread(_bomb, strike.fault.mebibytes)
    return Reply(body=bomb, headers={"Content-Encoding": "gzip"})


@functools.lru_cache(maxsize=1)
def _bomb(mebibytes: int) -> bytes:
    """Blanks, compressed once and repeated: a small body that unpacks to a huge one."""
    blanks = b" " * MEBIBYTE
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(blanks) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(blanks, checksum)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    length = (mebibytes * MEBIBYTE) % 2**32
    return head + block * mebibytes + b"\x03\0" + struct.pack("<II", checksum, length)
