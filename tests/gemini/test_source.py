"""Large media on their way out: the same bytes whether the page cache holds them or the disk must be asked."""

import os
from pathlib import Path

import pytest

from pipeline.errors import ItemError
from pipeline.gemini import source
from pipeline.gemini.source import SMALL_BYTES, Source, open_source
from pipeline.media.identify import identify
from pipeline.records import Media

SIZE_BYTES = SMALL_BYTES + 1_234_567
OFFSET = 123_457


@pytest.fixture(params=["cached", "from disk"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "from disk":
        monkeypatch.setattr(source, "_read_cached", lambda *_: None)
    elif not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("the system can't tell what its page cache holds")


@pytest.fixture
def media(tmp_path: Path) -> Media:
    path = tmp_path / "large.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(SIZE_BYTES - 4))
    found = identify(str(path), shown="large.jpg", max_bytes=2**31)
    return Media(
        path="large.jpg",
        location=str(path),
        mime_type=found.mime_type,
        size_bytes=found.identity.size_bytes,
        sha256=found.sha256,
        identity=found.identity,
    )


async def read(opened: Source, offset: int, length: int) -> bytes:
    stream = opened.body(offset, length)
    assert not isinstance(stream, bytes)
    return b"".join([piece async for piece in stream()])


@pytest.mark.usefixtures("where")
async def test_any_part_is_streamed_as_often_as_it_is_sent(media: Media) -> None:
    whole = Path(media.location).read_bytes()
    opened = await open_source(media)
    try:
        for _ in range(2):
            assert await read(opened, OFFSET, 2_000_000) == whole[OFFSET : OFFSET + 2_000_000]
        assert await read(opened, 0, SIZE_BYTES) == whole
    finally:
        opened.close()


@pytest.mark.usefixtures("where")
async def test_a_file_cut_while_it_is_sent_is_noticed(media: Media) -> None:
    opened = await open_source(media)
    try:
        os.truncate(media.location, SIZE_BYTES // 2)
        with pytest.raises(ItemError, match=r"large\.jpg"):
            await read(opened, 0, SIZE_BYTES)
    finally:
        opened.close()


@pytest.mark.usefixtures("where")
async def test_a_change_near_the_end_is_noticed_before_all_is_sent(media: Media) -> None:
    """Else the service would finish a file that nobody knows of."""
    opened = await open_source(media)
    stream = opened.body(0, SIZE_BYTES)
    assert callable(stream)
    sent = 0
    try:
        with pytest.raises(ItemError, match="changed"):  # noqa: PT012
            async for piece in stream():
                sent += len(piece)
                os.utime(media.location, ns=(1, sent if SIZE_BYTES - sent < 190_000 else media.identity.mtime_ns))
    finally:
        opened.close()
    assert 0 < SIZE_BYTES - sent < SMALL_BYTES


async def test_what_was_only_touched_is_sent_and_what_is_another_is_not(media: Media) -> None:
    """Its bytes decide; and what has taken its place is neither waited for nor read."""
    descriptors = len(os.listdir("/dev/fd"))
    os.utime(media.location)
    (await open_source(media)).close()
    with open(media.location, "r+b") as file:
        file.seek(SIZE_BYTES // 2)
        file.write(b"other")
    with pytest.raises(ItemError, match="changed"):
        await open_source(media)
    os.unlink(media.location)
    os.mkfifo(media.location)
    with pytest.raises(ItemError, match="changed"):
        await open_source(media)
    assert len(os.listdir("/dev/fd")) == descriptors
