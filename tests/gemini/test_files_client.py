"""The File API client against the emulator, whole: faults by plan, and bytes compared by hash."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.drain import Drain
from pipeline.emulator.plan import Fault, Plan
from pipeline.emulator.server import Emulator
from pipeline.errors import Again, ItemError, StopForHuman, StorageFull, TryAgain
from pipeline.gemini.api import Call, FilesApi, Reply, Route
from pipeline.gemini.client import open_client
from pipeline.gemini.health import Patience
from pipeline.gemini.source import open_source
from pipeline.gemini.upload import Upload
from pipeline.limits import Limits
from pipeline.records import FileIdentity, FileState, Media
from pipeline.spec import EndpointSpec, UploadSpec
from tests.gemini.conftest import CANARY, raw_server, says
from tests.gemini.doubles import Recorder, Service

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n"
HASTE = Patience(backoff_seconds=0.001, backoff_max_seconds=0.01)


class Bench:
    """An open client and the emulator that it talks to."""

    def __init__(self, emulator: Emulator, files: FilesApi) -> None:
        self.emulator = emulator
        self.files = files
        self.progress: list[int] = []
        self.drain = Drain()

    async def upload(self, media: Media):
        return await self.files.upload(media, progress=self.progress.append)

    def routes(self) -> list[str]:
        return [call.route for call in self.emulator.service.ledger.calls]


@asynccontextmanager
async def bench(*faults: Fault, upload: UploadSpec | None = None, limits: Limits | None = None) -> AsyncIterator[Bench]:
    plan = Plan(fault=list(faults), describe="brief", limits=limits or Limits())
    drain = Drain()
    async with (
        Emulator(plan) as emulator,
        open_client(
            api_key=CANARY,
            ledger=None,
            drain=drain,
            observer=Recorder(),
            clock=SystemClock(),
            endpoint=EndpointSpec(base_url=emulator.base_url),
            upload=upload,
            patience=HASTE,
        ) as client,
    ):
        made = Bench(emulator, client.files)
        made.drain = drain
        yield made


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Media]:
    """Makes a file and says what the manifest room would say of it."""

    def make(size_bytes: int, name: str = "a.png") -> Media:
        path = tmp_path / name
        path.write_bytes((PNG + os.urandom(size_bytes))[:size_bytes])
        found = path.stat()
        return Media(
            path=name,
            location=str(path),
            mime_type="image/png",
            size_bytes=size_bytes,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            identity=FileIdentity(
                size_bytes=size_bytes, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns, inode=found.st_ino
            ),
        )

    return make


@pytest.mark.parametrize("size", [100, 2 * MIB + 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
async def test_sizes_around_the_chunk(made: Callable[..., Media], size: int) -> None:
    """Whatever its size, the file arrives with its hash, and progress adds up to it."""
    async with bench() as b:
        media = made(size)
        file = await b.upload(media)
        assert (file.sha256, file.size_bytes) == (media.sha256, size)
        assert sum(b.progress) == size
        assert b.routes().count("upload_start") == 1


@pytest.mark.parametrize("durable", [True, False])
async def test_cut_chunks_go_on_where_the_server_stands(made: Callable[..., Media], durable: bool) -> None:
    """After each cut the offset is asked for, in one session, and at most a chunk a cut is sent again."""
    async with bench(Fault(kind="cut_upload", first=5, durable=durable)) as b:
        media = made(20 * MIB)
        assert (await b.upload(media)).sha256 == media.sha256
        assert sum(b.progress) == media.size_bytes
        assert b.routes().count("query") >= 5
        sent = sum(call.bytes_received for call in b.emulator.service.ledger.calls if "start" not in call.route)
        assert sent <= media.size_bytes + 5 * 8 * MIB


async def test_lost_finalize_answer_is_asked_for(made: Callable[..., Media]) -> None:
    """The file is found by a query instead of being uploaded again."""
    async with bench(Fault(kind="lost_finalize", first=1)) as b:
        media = made(9 * MIB)
        assert (await b.upload(media)).sha256 == media.sha256
        assert b.routes().count("upload_start") == 1
        assert "query" in b.routes()


@pytest.mark.parametrize(("told", "state"), [(b"", FileState.ACTIVE), (b',"state":"PROCESSING"', FileState.PROCESSING)])
async def test_a_service_that_tells_no_states_has_none(told: bytes, state: FileState) -> None:
    """A file of which ``files.get`` tells no state can be used; one that is told to be PROCESSING can't."""
    reply = says(b'HTTP/1.0 200 OK\r\n\r\n{"name":"files/a","uri":"https://x/files/a"' + told + b"}")
    async with (
        raw_server(reply) as server,
        open_client(
            api_key=CANARY,
            ledger=None,
            drain=Drain(),
            observer=Recorder(),
            clock=SystemClock(),
            endpoint=EndpointSpec(base_url=server.url),
        ) as client,
    ):
        assert (await client.files.get("files/a")).state is state


async def test_missing_upload_url_is_asked_for_again_and_then_fails_the_item(made: Callable[..., Media]) -> None:
    """Twice missing is mended; always missing ends the item after three starts."""
    async with bench(Fault(kind="upload_no_url", first=2)) as b:
        assert (await b.upload(made(100))).state is FileState.ACTIVE
    async with bench(Fault(kind="upload_no_url")) as b:
        with pytest.raises(ItemError) as caught:
            await b.upload(made(100))
        assert (caught.value.failure.kind, caught.value.failure.retryable) == ("upload_failed", True)
        assert b.routes() == ["upload_start"] * 3


async def test_upload_url_missing_for_ten_files_stops_the_run(made: Callable[..., Media]) -> None:
    """Then it is a proxy that strips the header."""
    async with bench(Fault(kind="upload_no_url")) as b:
        for number in range(9):
            with pytest.raises(ItemError):
                await b.upload(made(100, f"{number}.png"))
        with pytest.raises(StopForHuman, match="X-Goog-Upload-URL"):
            await b.upload(made(100, "last.png"))
        assert b.drain.exit_code == 5


async def test_foreign_upload_url_stops_the_run_and_sends_nothing(made: Callable[..., Media]) -> None:
    """Neither a byte nor the key goes to a host that is not the service's."""
    async with bench(Fault(kind="upload_foreign_url", host="https://upload.evil.example.com")) as b:
        with pytest.raises(StopForHuman, match=r"upload\.evil\.example\.com"):
            await b.upload(made(100))
        assert b.routes() == ["upload_start"]
        assert b.drain.exit_code == 5


async def test_sessions_that_never_take_a_byte_are_given_up(made: Callable[..., Media]) -> None:
    """Each is "active" and stays at 0: after as many as there are tries the item ends, having called no model."""
    media = made(100)
    calls: list[Route] = []

    def answered(call: Call, _number: int) -> Reply:
        calls.append(call.route)
        if call.route is Route.UPLOAD_START:
            return Reply(status=200, headers={"x-goog-upload-url": "http://127.0.0.1:9/u"}, body=b"")
        return Reply(
            status=200, headers={"x-goog-upload-status": "active", "x-goog-upload-size-received": "0"}, body=b""
        )

    source = await open_source(media)
    upload = Upload(
        Service(answered),
        source,
        media,
        base_url="http://127.0.0.1:9",
        api_version="v1beta",
        spec=UploadSpec(attempts=3),
        patience=HASTE,
        drain=Drain(),
        progress=lambda _bytes: None,
    )
    with anyio.fail_after(30), pytest.raises(ItemError) as caught:
        await upload.run()

    assert (caught.value.failure.kind, caught.value.failure.retryable) == ("upload_failed", True)
    assert caught.value.attempts == 0
    assert calls.count(Route.UPLOAD_START) == 3


async def test_dead_uploads_end_as_a_retryable_failure(made: Callable[..., Media]) -> None:
    """Cuts that keep nothing are given up after the configured tries, and progress is taken back."""
    async with bench(Fault(kind="cut_upload", durable=False), upload=UploadSpec(attempts=4)) as b:
        with pytest.raises(ItemError) as caught:
            await b.upload(made(9 * MIB))
        assert (caught.value.failure.kind, caught.value.failure.retryable) == ("upload_failed", True)
        assert sum(b.progress) == 0


async def test_changed_file_is_refused_before_or_after(made: Callable[..., Media]) -> None:
    """Other bytes, another length, or no file at all: source_changed, and nothing remains in the storage."""
    async with bench() as b:
        for damage in (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
            lambda path: path.unlink(),
        ):
            media = made(3 * MIB)
            damage(Path(media.location))
            with pytest.raises(ItemError) as caught:
                await b.upload(media)
            assert (caught.value.failure.kind, caught.value.failure.retryable) == ("source_changed", False)
        assert b.routes() == []


async def test_touched_file_is_uploaded(made: Callable[..., Media]) -> None:
    """A new mtime over the same bytes is no change."""
    async with bench() as b:
        media = made(3 * MIB)
        os.utime(media.location, (1, 1))
        assert (await b.upload(media)).sha256 == media.sha256


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
async def test_what_is_no_plain_file_any_more_is_refused(
    made: Callable[..., Media], put: Callable[[str], None]
) -> None:
    """A FIFO or a link in the file's place neither blocks nor is followed."""
    async with bench() as b:
        media = made(100)
        Path(media.location).unlink()
        put(media.location)
        with pytest.raises(ItemError) as caught:
            await b.upload(media)
        assert caught.value.failure.kind == "source_changed"


async def test_file_truncated_while_it_streams_is_noticed_at_once(made: Callable[..., Media]) -> None:
    """The next chunk is not sent, and the upload ends without waiting for any deadline."""
    async with bench() as b:
        media = made(20 * MIB)

        def cut(_taken: int) -> None:
            os.truncate(media.location, 1000)

        with pytest.raises(ItemError) as caught:
            await b.files.upload(media, progress=lambda taken: cut(taken) if taken > 0 else None)
        assert caught.value.failure.kind == "source_changed"


async def test_full_storage_is_its_own_error(made: Callable[..., Media]) -> None:
    """The room must know it from a failure of the item."""
    async with bench(limits=Limits(project_storage_bytes=1000)) as b:
        with pytest.raises(StorageFull):
            await b.upload(made(2000))


async def test_a_storage_that_fills_up_while_a_file_is_on_its_way(made: Callable[..., Media]) -> None:
    """What was taken of the file is taken back from the progress: all of it will be sent again."""
    async with bench(Fault(kind="429_storage", route="upload_chunk", after=1)) as b:
        with pytest.raises(StorageFull):
            await b.upload(made(20 * MIB))
        assert b.progress[0] > 0
        assert sum(b.progress) == 0


async def test_a_poll_outside_a_run_ends() -> None:
    """Within one the room knows how long to ask; ``pipeline files get`` has nobody who would end it."""
    async with bench(Fault(kind="503", route="file_get")) as b:
        with pytest.raises(ItemError) as caught:
            await b.files.get("files/abc")
        assert caught.value.failure.kind == "unavailable"
        assert b.routes() == ["file_get"] * 6


async def test_get_delete_and_list(made: Callable[..., Media]) -> None:
    """A file is found, listed over several pages, deleted twice without error, and then gone."""
    async with bench() as b:
        names = [(await b.upload(made(50 + n, f"{n}.png"))).name for n in range(3)]
        assert sorted([file.name async for file in b.files.list()]) == sorted(names)
        assert (await b.files.get(names[0])).name == names[0]
        await b.files.delete(names[0])
        await b.files.delete(names[0])
        with pytest.raises(TryAgain) as caught:
            await b.files.get(names[0])
        assert (caught.value.reason, caught.value.file_names) == (Again.FILE_GONE, (names[0],))


async def test_name_that_is_none_is_not_sent() -> None:
    """A name goes into a URL with the key, so only a file's name is taken."""
    async with bench() as b:
        with pytest.raises(ItemError):
            await b.files.delete("files/../models/x")
        assert b.routes() == []


@pytest.mark.parametrize("kind", ["hash_wrong", "size_wrong", "mime_wrong"])
async def test_unverified_upload_is_deleted_and_made_again(made: Callable[..., Media], kind: str) -> None:
    """One wrong file is replaced; wrong ones for ever fail the item after three, and none is left behind."""
    async with bench(Fault(kind=kind, first=1)) as b:
        media = made(3000)
        assert (await b.upload(media)).sha256 == media.sha256
        assert sum(b.progress) == media.size_bytes
        assert len([file async for file in b.files.list()]) == 1
    async with bench(Fault(kind=kind)) as b:
        with pytest.raises(ItemError) as caught:
            await b.upload(made(3000))
        assert (caught.value.failure.kind, caught.value.failure.retryable) == ("upload_failed", True)
        assert b.routes().count("upload_start") == 3
        assert [file async for file in b.files.list()] == []
        assert sum(b.progress) == 0
