"""The project's file storage: upload and verify, get, delete, list."""

from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from pipeline.drain import Drain
from pipeline.errors import Failure, ItemError, StorageFull, TryAgain
from pipeline.events import Observer, Warned
from pipeline.gemini.api import Call, Reply, Route, Transport
from pipeline.gemini.file_resource import FILE_NAME, decode_file
from pipeline.gemini.health import Patience
from pipeline.gemini.source import open_source
from pipeline.gemini.upload import Upload
from pipeline.gemini.upload_plan import mismatch
from pipeline.records import FileState, Media, RemoteFile
from pipeline.spec import EndpointSpec, UploadSpec

CALL_SECONDS = 60.0
LIST_PAGE = 100
"""Largest ``pageSize`` of files.list (api/files)."""

_UPLOADS_MAX = 3
"""So often is a file uploaded whose verification fails."""


class FilesClient:
    """Answers ``FilesApi``. ``uploads`` carries the sessions, ``polls`` asks without end, ``calls`` a few times."""

    def __init__(
        self,
        *,
        uploads: Transport,
        polls: Transport,
        calls: Transport,
        endpoint: EndpointSpec,
        spec: UploadSpec,
        patience: Patience,
        drain: Drain,
        observer: Observer,
    ) -> None:
        self._uploads = uploads
        self._polls = polls
        self._calls = calls
        self._endpoint = endpoint
        self._spec = spec
        self._patience = patience
        self._drain = drain
        self._observer = observer
        self._hash_missed = False

    async def upload(self, media: Media, *, progress: Callable[[int], None]) -> RemoteFile:
        source = await open_source(media)
        try:
            for _ in range(_UPLOADS_MAX):
                upload = Upload(
                    self._uploads,
                    source,
                    media,
                    base_url=self._endpoint.base_url,
                    api_version=self._endpoint.api_version,
                    spec=self._spec,
                    patience=self._patience,
                    drain=self._drain,
                    progress=progress,
                )
                file: RemoteFile | None = None
                try:
                    file = await upload.run()
                    await source.confirm(file.sha256)
                except (ItemError, StorageFull):
                    upload.undo()
                    if file:
                        await self._discard(file.name)
                    raise
                wrong = mismatch(file, media)
                if wrong is None:
                    self._miss_hash(file)
                    return file
                upload.undo()
                await self._discard(file.name)
        finally:
            source.close()
        message = f"uploaded {_UPLOADS_MAX} times, and {wrong}"
        raise ItemError(Failure(stage="upload", kind="upload_failed", message=message, retryable=True))

    async def get(self, name: str) -> RemoteFile:
        reply = await self._send(self._polls, Route.FILE_GET, "GET", name)
        # a finished upload of which no state is told is asked about; where that tells none either, there are none
        file = decode_file(reply.value, untold=FileState.ACTIVE)
        if file is None:
            message = f"files.get of {name} told of no file"
            failure = Failure(stage="activation", kind="malformed_answer", message=message, retryable=True)
            raise ItemError(failure)
        return file

    async def delete(self, name: str) -> None:
        await self._send(self._calls, Route.FILE_DELETE, "DELETE", name)

    async def list(self) -> AsyncIterator[RemoteFile]:
        token: str | None = ""
        seen = {token}
        while token is not None:
            query = f"?pageSize={LIST_PAGE}" + (f"&pageToken={quote(token, safe='')}" if token else "")
            path = f"{self._endpoint.api_version}/files{query}"
            value = (await self._calls.send(_call(Route.FILE_LIST, "GET", path, "files"))).value
            page = value if isinstance(value, dict) else {}
            listed = page.get("files")
            for entry in listed if isinstance(listed, list) else []:
                if file := decode_file(entry):
                    yield file
            following = page.get("nextPageToken")
            token = following if isinstance(following, str) and following not in seen else None
            seen.add(token or "")

    async def _send(self, transport: Transport, route: Route, method: str, name: str) -> Reply:
        if not FILE_NAME.fullmatch(name):
            message = f"not the name of a file, which looks like files/abc-123: {name[:80]!r}"
            raise ItemError(Failure(stage="upload", kind="invalid_request", message=message))
        return await transport.send(_call(route, method, f"{self._endpoint.api_version}/{name}", name))

    def _miss_hash(self, file: RemoteFile) -> None:
        """Google's own endpoint tells every file's hash; a gateway may not."""
        if file.sha256 is None and not self._hash_missed:
            self._hash_missed = True
            self._observer.notify(
                Warned(message="the endpoint tells no SHA-256 of uploaded files; only their sizes can be verified")
            )

    async def _discard(self, name: str) -> None:
        """Free a file that nobody will use; where that fails, the service does it in two days."""
        try:
            await self.delete(name)
        except (ItemError, TryAgain):
            return


def _call(route: Route, method: str, path: str, subject: str) -> Call:
    return Call(route=route, method=method, path=path, total_seconds=CALL_SECONDS, subject=subject)
