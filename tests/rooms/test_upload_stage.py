"""What the upload room makes of what the service tells of a file."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import cast

import pytest

from pipeline.clock import ManualClock
from pipeline.events import Observers
from pipeline.gemini.api import FilesApi
from pipeline.limits import Limits
from pipeline.records import Content, Media, RemoteFile
from pipeline.spec import UploadSpec
from pipeline.upload.stage import UploadRoom
from tests.support.builders import NOW, item, remote


class Service:
    """files.upload."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file

    async def upload(self, _media: Media, *, progress: Callable[[int], None]) -> RemoteFile:
        progress(self._file.size_bytes)
        return self._file


class Storage:
    """One with room for everything."""

    def __init__(self) -> None:
        self.files: list[RemoteFile] = []

    async def claim(self, needs: Mapping[Content, int]) -> None: ...

    async def refuse(self, needs: Mapping[Content, int]) -> None: ...

    def known(self, _content: Content) -> RemoteFile | None:
        return None

    async def stored(self, _content: Content, file: RemoteFile) -> None:
        self.files.append(file)

    def release(self, contents: Iterable[Content]) -> None: ...


async def good(_model: str) -> None:
    """Every model is."""


LIVES = timedelta(seconds=7200)


@pytest.mark.parametrize(
    ("told", "expires_at"),
    [
        ({"expires_at": NOW + timedelta(seconds=60)}, NOW + timedelta(seconds=60)),
        ({"expires_at": None}, NOW + LIVES),
    ],
)
async def test_a_file_without_an_end_ends_as_the_limits_say(told: dict[str, object], expires_at: object) -> None:
    """A gateway may tell no ``expirationTime``; what it does tell wins."""
    storage, file = Storage(), remote("files/a", **told)
    room = UploadRoom(
        files=cast("FilesApi", Service(file)),
        storage=storage,
        check_model=good,
        spec=UploadSpec(via="files"),
        limits=Limits(file_life_seconds=7200),
        clock=ManualClock(NOW),
        observer=Observers(),
    )
    async with room:
        uploaded = await room.handle(item())
    [part] = uploaded.parts
    assert part.file is not None
    assert part.file.expires_at == expires_at
    assert storage.files == [part.file]
