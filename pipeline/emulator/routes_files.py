"""files.get, files.list and files.delete; changes when one of these calls does (ai.google.dev/api/files)."""

from typing import Any

from pipeline.emulator.exchange import Exchange, Work
from pipeline.emulator.files import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, StoredFile, check_name, page_size
from pipeline.emulator.reply import Reply
from pipeline.emulator.service import Service


def _identify(service: Service, exchange: Exchange) -> StoredFile | None:
    """Random names differ from run to run; the content and the display name do not."""
    name = exchange.target.name
    file = service.files.find(name, exchange.project, service.seconds())
    exchange.identity = f"{file.display_name}|{file.sha256}" if file else name
    exchange.match_texts = [name, file.display_name] if file else [name]
    exchange.files = [file] if file else []
    return file


async def get(service: Service, exchange: Exchange) -> Work:
    """The bare File."""
    _identify(service, exchange)

    async def work() -> Reply:
        file = service.files.get(exchange.target.name, exchange.project, service.seconds())
        await _find_duration(service, file)
        return Reply(payload=file.render(service.seconds(), exchange.base_url))

    return work


async def _find_duration(service: Service, file: StoredFile) -> None:
    is_wanted = file.duration_seconds is None and service.plan.describe == "full"
    if is_wanted and file.mime_type.startswith("video/") and file.state(service.seconds()) == "ACTIVE":
        file.duration_seconds = (await service.facts.of(file.sha256, file.mime_type)).duration_seconds


async def delete(service: Service, exchange: Exchange) -> Work:
    """``{}``, or the 403 of a file that cannot be had."""
    _identify(service, exchange)

    async def work() -> Reply:
        identifier = check_name(exchange.target.name, "DeleteFileRequest.name")
        service.files.delete(identifier, exchange.project, service.seconds())
        return Reply(payload={})

    return work


async def list_page(service: Service, exchange: Exchange) -> Work:
    """One page of the project's files, newest first; ``{}`` where there is none."""
    query = exchange.request.query
    token = query.get("pageToken", "")
    exchange.identity = token

    async def work() -> Reply:
        size = page_size(query.get("pageSize", ""), PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        now = service.seconds()
        files, next_token = service.files.page(exchange.project, size, token, now)
        payload: dict[str, Any] = {}
        if files:
            payload["files"] = [file.render(now, exchange.base_url) for file in files]
        if next_token:
            payload["nextPageToken"] = next_token
        return Reply(payload=payload)

    return work
