"""How an answer's bytes travel, whole or broken; changes when an answer can break in another way."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from pipeline.emulator.exchange import Exchange
from pipeline.emulator.reply import Reply

DRIP_SECONDS = 0.3
SETTLE_SECONDS = 0.05
"""Lets sent bytes reach the client before a RST would discard them."""


async def deliver(exchange: Exchange, reply: Reply) -> web.StreamResponse:
    """Send the answer."""
    if reply.delivery == "whole":
        return web.Response(status=reply.status, body=reply.content(), headers=_headers(reply))
    if reply.delivery == "pieces":
        return await _send_pieces(exchange, reply, reply.pieces, pause_seconds=0.0)
    if reply.delivery == "drip":
        content = reply.content()
        single_bytes = tuple(content[index : index + 1] for index in range(len(content)))
        return await _send_pieces(exchange, reply, single_bytes, pause_seconds=DRIP_SECONDS)
    await _cut(exchange, reply)
    return web.Response(status=reply.status)


def _headers(reply: Reply) -> dict[str, str]:
    return {"Content-Type": reply.content_type, **reply.headers}


async def _send_pieces(
    exchange: Exchange, reply: Reply, pieces: tuple[bytes, ...], *, pause_seconds: float
) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=_headers(reply))
    if reply.delivery == "drip":
        response.content_length = len(pieces)
    await response.prepare(exchange.request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_seconds)
    await response.write_eof()
    return response


async def _cut(exchange: Exchange, reply: Reply) -> None:
    """Send the head and half of the body by hand, then end the connection: no server means to do this."""
    content = reply.content()
    half = content[: len(content) // 2]
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in _headers(reply).items()]
    if reply.delivery == "cut_chunked":
        lines.append("Transfer-Encoding: chunked")
        half = f"{len(half):x}\r\n".encode() + half + b"\r\n"
    elif reply.delivery == "cut_close":
        lines.append("Connection: close")
    else:
        lines.append(f"Content-Length: {len(content)}")
    transport = exchange.request.transport
    if transport is None:
        return
    transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + half)
    if reply.delivery == "cut_reset":
        await asyncio.sleep(SETTLE_SECONDS)
        exchange.reset()
    else:
        transport.close()
