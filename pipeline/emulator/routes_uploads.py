"""The upload server: resumable and multipart; changes when the upload protocol does.

Protocol: ai.google.dev/gemini-api/docs/files and the references of ``uploads.py``.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping

from pipeline.emulator import api_errors
from pipeline.emulator.exchange import Exchange, Work
from pipeline.emulator.files import StoredFile, check_display_name
from pipeline.emulator.messages import CreateFileRequest, File
from pipeline.emulator.reply import JSON_TYPE, TEXT_TYPE, Refusal, Reply
from pipeline.emulator.service import Service
from pipeline.emulator.strict_json import read
from pipeline.emulator.uploads import STATUS, Session
from pipeline.limits import UPLOAD_GRANULARITY_BYTES

METADATA_BYTES_MAX = 1024 * 1024
MULTIPART_BYTES_MAX = 64 * 1024 * 1024
"""Multipart bodies are held in memory; larger files have the resumable protocol."""


def routes_of_upload(headers: Mapping[str, str], upload_id: str) -> tuple[str, ...]:
    """The call's names; a request that both sends bytes and finalizes is both."""
    if not upload_id:
        protocol = headers.get("X-Goog-Upload-Protocol", "").lower()
        return ("upload_multipart",) if protocol == "multipart" else ("upload_start",)
    commands = _commands(headers)
    if "finalize" in commands:
        return ("finalize", "upload_chunk") if "upload" in commands else ("finalize",)
    return ("query",) if "query" in commands else ("cancel",) if "cancel" in commands else ("upload_chunk",)


def _commands(headers: Mapping[str, str]) -> set[str]:
    return {command.strip() for command in headers.get("X-Goog-Upload-Command", "").lower().split(",")}


async def start(service: Service, exchange: Exchange) -> Work:
    """Open a session; its URL is in a header, on the host under which the client reached us."""
    headers = exchange.request.headers
    file = read(CreateFileRequest, await exchange.body(METADATA_BYTES_MAX)).file or File()
    mime_type = headers.get("X-Goog-Upload-Header-Content-Type") or file.mime_type or "application/octet-stream"
    announced = headers.get("X-Goog-Upload-Header-Content-Length", "")
    exchange.identity = f"{file.display_name}|{file.name}|{mime_type}|{announced}"
    exchange.match_texts = [file.display_name, file.name]

    async def work() -> Reply:
        if headers.get("X-Goog-Upload-Protocol", "").lower() != "resumable" or "start" not in _commands(headers):
            raise Refusal(api_errors.plain_text(400, "Expected X-Goog-Upload-Protocol: resumable and Command: start."))
        declared_bytes = int(announced) if announced.isdigit() else None
        session = _open(service, exchange, file, mime_type, declared_bytes)
        version = exchange.target.version
        url = f"{exchange.base_url}/upload/{version}/files?upload_id={session.upload_id}&upload_protocol=resumable"
        reply_headers = {
            "X-Goog-Upload-URL": url,
            "X-Goog-Upload-Control-URL": url,
            STATUS: "active",
            "X-Goog-Upload-Chunk-Granularity": str(UPLOAD_GRANULARITY_BYTES),
        }
        return Reply(content_type=TEXT_TYPE, headers=reply_headers)

    return work


def _open(service: Service, exchange: Exchange, file: File, mime_type: str, declared_bytes: int | None) -> Session:
    now = service.seconds()
    check_display_name(file.display_name)
    service.files.require_space(exchange.project, declared_bytes or 0, now)
    session = Session(
        upload_id="AB" + secrets.token_urlsafe(48),
        project=exchange.project,
        identity=f"{exchange.identity}#{exchange.attempt}",
        identifier=service.files.reserve_name(file.name, now),
        display_name=file.display_name,
        mime_type=mime_type,
        declared_bytes=declared_bytes,
        keep_bytes=service.plan.decode_bytes if service.plan.describe == "full" else 0,
    )
    service.sessions.add(session)
    return session


async def in_session(service: Service, exchange: Exchange) -> Work:
    """Anything sent to a session's URL; the ``upload_id`` in it is the only credential."""
    request = exchange.request
    session = service.sessions.get(request.query.get("upload_id", ""))
    offset = request.headers.get("X-Goog-Upload-Offset", "")
    exchange.project = session.project
    exchange.identity = f"{session.identity}@{offset}"
    exchange.match_texts = [session.display_name, session.identifier]
    commands = _commands(request.headers)

    async def work() -> Reply:
        if "query" in commands:
            return _session_reply(service, exchange, session)
        if "cancel" in commands:
            session.require_active()
            service.files.release_name(session.identifier)
            service.sessions.end(session, "cancelled")
            return _session_reply(service, exchange, session)
        if not commands & {"upload", "finalize"}:
            raise Refusal(api_errors.plain_text(400, "Unknown X-Goog-Upload-Command.", session.headers()))
        if "upload" in commands:
            session.check_chunk(offset, exchange.content_length, final="finalize" in commands)
            await session.take(exchange.blocks(), durable=exchange.cut_durably)
        if "finalize" in commands:
            _finalize(service, exchange, session)
        return _session_reply(service, exchange, session)

    return work


def _session_reply(service: Service, exchange: Exchange, session: Session) -> Reply:
    reply = Reply(headers=session.headers(), content_type=TEXT_TYPE)
    if session.file is not None:
        reply.content_type = JSON_TYPE
        reply.payload = {"file": session.file.render(service.seconds(), exchange.base_url)}
    return reply


def _finalize(service: Service, exchange: Exchange, session: Session) -> None:
    session.require_active()
    session.check_size()
    content = bytes(session.kept) if session.kept is not None else None
    session.file = _store(
        service,
        exchange,
        identifier=session.identifier,
        display_name=session.display_name,
        mime_type=session.mime_type,
        size_bytes=session.received_bytes,
        sha256=session.sha256,
        content=content,
    )
    service.sessions.end(session, "final")


def _store(
    service: Service,
    exchange: Exchange,
    *,
    identifier: str,
    display_name: str,
    mime_type: str,
    size_bytes: int,
    sha256: str,
    content: bytes | None,
) -> StoredFile:
    now = service.seconds()
    service.files.require_space(exchange.project, size_bytes, now)
    file = service.files.add(
        identifier=identifier,
        project=exchange.project,
        display_name=display_name,
        mime_type=mime_type,
        size_bytes=size_bytes,
        sha256=sha256,
        processing_seconds=service.plan.processing_seconds_of(mime_type),
        now=now,
    )
    exchange.files = [file]
    uploaded = {"name": f"files/{identifier}", "sha256": sha256, "displayName": display_name, "sizeBytes": size_bytes}
    service.ledger.uploads.append(uploaded)
    if content and service.plan.describe == "full":
        service.facts.keep(sha256, content)
    return file


async def multipart(service: Service, exchange: Exchange) -> Work:
    """Metadata and bytes in one request, as older clients send small files."""
    content_type = exchange.request.headers.get("Content-Type", "")
    metadata, mime_type, content = _split(content_type, await exchange.body(MULTIPART_BYTES_MAX))
    file = read(CreateFileRequest, metadata).file or File()
    sha256 = hashlib.sha256(content).hexdigest()
    exchange.identity = f"{file.display_name}|{file.name}|{sha256}"
    exchange.match_texts = [file.display_name, file.name]

    async def work() -> Reply:
        check_display_name(file.display_name)
        stored = _store(
            service,
            exchange,
            identifier=service.files.reserve_name(file.name, service.seconds()),
            display_name=file.display_name,
            mime_type=mime_type or file.mime_type or "application/octet-stream",
            size_bytes=len(content),
            sha256=sha256,
            content=content if len(content) <= service.plan.decode_bytes else None,
        )
        payload = {"file": stored.render(service.seconds(), exchange.base_url)}
        return Reply(payload=payload, headers={STATUS: "final"})

    return work


def _split(content_type: str, body: bytes) -> tuple[bytes, str, bytes]:
    """The metadata, the second part's MIME type and its bytes."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    parts = body.split(b"--" + boundary[1].encode()) if boundary else []
    if len(parts) != 4:  # before, metadata, bytes, after
        raise Refusal(api_errors.plain_text(400, "Expected multipart/related with two parts."))
    _, metadata = _part(parts[1])
    mime_type, content = _part(parts[2])
    return metadata, mime_type, content


def _part(raw: bytes) -> tuple[str, bytes]:
    head, _, content = raw.partition(b"\r\n\r\n")
    mime_type = re.search(rb"(?i)content-type:\s*([^\s;]+)", head)
    return mime_type[1].decode() if mime_type else "", content.removesuffix(b"\r\n")
