"""``pipeline files list|get|upload|delete``: the project's File API storage by hand."""

import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from pipeline.commands.tell import tell, tell_json
from pipeline.compose import open_files
from pipeline.config import api_key, check_working_directory, endpoint, environment, required_key
from pipeline.errors import Failure, ItemError, StopEarly, StorageFull, TryAgain
from pipeline.events import Event, GateClosed, Retrying
from pipeline.gemini.api import FilesApi
from pipeline.limits import Limits
from pipeline.media.identify import identify
from pipeline.records import Json, Media, RemoteFile
from pipeline.settings import CommandLine, read


def files_command(verb: str, settings: Mapping[str, Json], *, as_json: bool, **given: Any) -> None:
    """Do ``verb``; failures of single files are told on stderr and make the exit code 1."""
    if verb == "upload":
        check_working_directory()
    config, _ = read(CommandLine(source="-", settings=settings), environment())
    key = required_key(environment(), emulator_hint=False)
    if warning := api_key(environment())[1]:
        tell(warning, err=True)

    async def go() -> bool:
        async with open_files(endpoint(config.endpoint, emulator=False), key, observer=Waiting()) as files:
            show = show_json if as_json else show_text
            match verb:
                case "list":
                    return await each(["files"], lambda _: listed(files, show), None)
                case "get":
                    return await each([given["name"]], lambda name: files.get(resource_name(name)), show)
                case "upload":
                    return await each(given["paths"], lambda path: upload(files, path), show)
                case _:
                    return await each(given["names"], lambda name: files.delete(resource_name(name)), None)

    sys.exit(0 if anyio.run(go) else 1)


class Waiting:
    """The observer that tells why nothing comes: each reason once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def notify(self, event: Event) -> None:
        """Tell of a call that is sent again, or of all that wait."""
        if isinstance(event, Retrying | GateClosed) and event.message not in self._told:
            self._told.add(event.message)
            tell(f"{event.message}; trying again", err=True)


async def each(arguments: Any, act: Any, show: Any) -> bool:
    """``act`` on each argument; whether all went well."""
    well = True
    for argument in arguments:
        try:
            result = await act(argument)
        except (ItemError, TryAgain) as error:
            well = False
            message = error.failure.message.removeprefix(f"{argument}: ")
            tell(f"pipeline: {argument}: {message}", err=True)
        else:
            if show:
                show(result)
    return well


async def listed(files: FilesApi, show: Callable[[RemoteFile], None]) -> None:
    """Show every file of the project."""
    async for file in files.list():
        show(file)


async def upload(files: FilesApi, path: Path) -> RemoteFile:
    """Identify the file by its bytes and upload it."""
    media = await anyio.to_thread.run_sync(identified, path)
    try:
        return await files.upload(media, progress=lambda _: None)
    except StorageFull as error:
        what = f"the project's file storage is full ({error})"
        raise StopEarly(f"{what}: delete files (`pipeline files delete`) or try again when some have expired") from None


def identified(path: Path) -> Media:
    """The file at ``path`` as Media; blocking. Raises ``ItemError``."""
    location = os.path.realpath(path)
    found = identify(location, shown=str(path), max_bytes=Limits().file_bytes)
    return Media(
        path=str(path),
        location=location,
        mime_type=found.mime_type,
        size_bytes=found.identity.size_bytes,
        sha256=found.sha256,
        identity=found.identity,
    )


def resource_name(argument: str) -> str:
    """``files/abc`` for ``abc``, ``files/abc`` and the file's URI. Raises ``ItemError`` for anything else."""
    name = "files/" + argument.rsplit("files/", 1)[-1]
    if not name[6:].replace("-", "").isalnum() or not name.isascii():
        raise ItemError(
            Failure(
                stage="upload",
                kind="invalid_request",
                message="is not the name of a file; names look like files/abc-123",
            )
        )
    return name


def show_text(file: RemoteFile) -> None:
    """One line for a person."""
    expires = local(file.expires_at)
    label = file.display_name or ""
    line = f"{file.name:<26} {file.state:<10} {file.mime_type:<12} {file.size_bytes:>12}  until {expires}  {label}"
    tell(line)


def show_json(file: RemoteFile) -> None:
    """One JSON object a line."""
    tell_json(file)


def local(moment: datetime | None) -> str:
    """Local time to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "unknown"
