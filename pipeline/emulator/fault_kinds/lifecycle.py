"""Faults in the life of a file, from its upload to its use; changes when a file can go wrong in another way."""

import math

from pipeline.emulator.fault_kinds.registry import ANSWERS, CHUNKS, FILE_CREATION, Strike, kind
from pipeline.emulator.files import StoredFile
from pipeline.emulator.reply import Reply, Reset

START = frozenset({"upload_start"})
URL_HEADERS = ("X-Goog-Upload-URL", "X-Goog-Upload-Control-URL")
WRONG_SHA256_BASE64 = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMA=="
"""Of 64 zeros, as the service encodes a hash."""


@kind("cut_upload", CHUNKS)
async def _cut_upload(strike: Strike) -> Reply:
    """The connection breaks in the middle of a chunk."""
    exchange = strike.exchange
    exchange.cut_after_bytes = (exchange.content_length or 0) // 2
    exchange.cut_durably = strike.fault.durable
    return await strike.work()


@kind("lost_finalize", FILE_CREATION)
async def _lost_finalize(strike: Strike) -> Reply:
    """The file exists, and the client never hears of it."""
    await strike.work()
    raise Reset


@kind("upload_no_url", START)
async def _upload_no_url(strike: Strike) -> Reply:
    reply = await strike.work()
    for name in URL_HEADERS:
        reply.headers.pop(name)
    return reply


@kind("upload_foreign_url", START)
async def _upload_foreign_url(strike: Strike) -> Reply:
    reply = await strike.work()
    for name in URL_HEADERS:
        reply.headers[name] = reply.headers[name].replace(strike.exchange.base_url, strike.fault.host)
    return reply


@kind("vanish", ANSWERS)
async def _vanish(strike: Strike) -> Reply:
    """The files are gone just before they are used, as if they had expired."""
    for identifier, project in {(file.identifier, file.project) for file in strike.exchange.files}:
        strike.files.delete(identifier, project, strike.now)
    return await strike.work()


async def _created(strike: Strike) -> tuple[Reply, StoredFile | None]:
    reply = await strike.work()
    files = strike.exchange.files
    return reply, files[0] if files else None


def _retold(strike: Strike, reply: Reply, file: StoredFile) -> Reply:
    reply.payload = {"file": file.render(file.created_at, strike.exchange.base_url)}
    return reply


@kind("fail_processing", FILE_CREATION)
async def _fail_processing(strike: Strike) -> Reply:
    """FAILED once the file's processing time is over."""
    reply, file = await _created(strike)
    if file is None:
        return reply
    message = strike.fault.message or "The file could not be processed."
    file.failure = {"code": 13, "message": message}
    return _retold(strike, reply, file)


@kind("stuck_processing", FILE_CREATION)
async def _stuck_processing(strike: Strike) -> Reply:
    """PROCESSING for ever."""
    reply, file = await _created(strike)
    if file is None:
        return reply
    file.ready_at = math.inf
    return _retold(strike, reply, file)


def _misreport(name: str, field: str, value: str) -> None:
    async def act(strike: Strike) -> Reply:
        reply, file = await _created(strike)
        if file is None:
            return reply
        file.claims[field] = value
        return _retold(strike, reply, file)

    kind(name, FILE_CREATION)(act)


_misreport("hash_wrong", "sha256Hash", WRONG_SHA256_BASE64)
_misreport("size_wrong", "sizeBytes", "0")
_misreport("mime_wrong", "mimeType", "application/octet-stream")
_misreport("unknown_state", "state", "STATE_OF_TOMORROW")
