"""Sources that the manifest room can't read, or that come through a pipe, and how reading ends."""

import os
import time
from pathlib import Path

import anyio
import pytest

from pipeline.errors import UsageError
from pipeline.ledger.memory import MemoryLedger
from pipeline.limits import Limits
from tests.rooms.night import Night, write


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("photo.jpg", b"\xff\xd8\xff", "put it in a folder or a manifest"),
        ("photo", b"\xff\xd8\xff", "put it in a folder or a manifest"),
        ("list.txt", b"a.jpg", "is no manifest"),
        ("missing.jsonl", None, "can't be read"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    """What can't be a SOURCE is refused when the room is built."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        Night(MemoryLedger()).room(tmp_path / name)


def test_a_bad_template_is_refused_at_once(media: Path) -> None:
    """The run's own template is compiled before anything is read."""
    with pytest.raises(UsageError, match="the prompt given"):
        Night(MemoryLedger()).room(media, prompt="{{ x")


async def test_no_usable_row(media: Path) -> None:
    """All rows fail, each has its line, and the room tells that none was usable."""
    night = Night(MemoryLedger())
    room = await night.run(write(media / "m.jsonl", {"media": "nowhere.jpg"}, ["x"]))
    assert (room.total, room.usable, room.read_to_end) == (2, 0, True)
    assert night.failures == {"nowhere.jpg": "missing_file", "line:2": "bad_row"}


async def test_stdin(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from a pipe are read relative to the working directory, also twice for --on-change stop."""
    monkeypatch.chdir(media)
    stdin = os.dup(0)
    try:
        for on_change in ("run", "stop"):
            read_end, write_end = os.pipe()
            os.dup2(read_end, 0)
            os.write(write_end, b'{"media": "coffee.jpg"}\n{"media": "../x.jpg"}')
            os.close(write_end)
            os.close(read_end)
            night = Night(MemoryLedger())
            await night.run(None, on_change=on_change)
            assert [item.key for item in night.items] == ["coffee.jpg"]
            assert night.failures == {"../x.jpg": "outside_root"}
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


async def test_a_silent_pipe_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain ends the reading of a pipe that nobody writes to."""
    stdin = os.dup(0)
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    started = time.monotonic()
    try:
        with anyio.move_on_after(0.2) as scope:
            await Night(MemoryLedger()).run(None)
    finally:
        os.dup2(stdin, 0)
        for descriptor in (stdin, read_end, write_end):
            os.close(descriptor)
    assert scope.cancelled_caught
    assert time.monotonic() - started < 5


async def test_a_long_hash_can_be_cancelled(tmp_path: Path) -> None:
    """A drain doesn't wait for gigabytes to be hashed."""
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(100 * 1024**3)
    started = time.monotonic()
    with anyio.move_on_after(0.3) as scope:
        await Night(MemoryLedger()).run(tmp_path, limits=Limits(file_bytes=2**40))
    assert scope.cancelled_caught
    assert time.monotonic() - started < 5
