"""A file is opened once, checked before it is hashed, and its hash remembered only where that is safe."""

import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.clock import ManualClock, SystemClock
from pipeline.errors import ItemError
from pipeline.ledger.memory import MemoryLedger
from pipeline.media import identify as module
from pipeline.media.ahead import FILES_AHEAD, NICENESS, Ahead
from pipeline.media.identify import LARGE_BYTES, Identifier, identify
from pipeline.records import FileIdentity

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 3000
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


def kind_of(location: Path, max_bytes: int = 10_000) -> str:
    with pytest.raises(ItemError) as caught:
        identify(str(location), shown="a.png", max_bytes=max_bytes)
    assert caught.value.failure.stage == "manifest"
    return caught.value.failure.kind


def test_a_file_is_identified(tmp_path: Path) -> None:
    """Type, size and hash come from the bytes, whatever the name says."""
    path = tmp_path / "a.txt"
    path.write_bytes(PNG)
    found = identify(str(path), shown="a", max_bytes=10_000)
    assert (found.mime_type, found.sha256) == ("image/png", hashlib.sha256(PNG).hexdigest())
    assert found.identity.size_bytes == len(PNG)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO, a socket, a device, a folder, a link or a loop of links ends at once as not_a_file."""
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "real.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("real.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path may have a hundred characters, and temporary folders are deep
        server.bind("s.png")
        started = time.monotonic()
        for name in ("fifo.png", "loop.png", "link.png", "s.png", "", "/dev/null"):
            assert kind_of(tmp_path / name) == "not_a_file", name
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty_file"),
        (b"hello", "unsupported_type"),
        (b"GIF89a....", "unsupported_type"),
        (PNG * 4, "file_too_large"),
    ],
)
def test_files_that_the_api_does_not_take(tmp_path: Path, content: bytes, kind: str) -> None:
    """Each has its own kind."""
    (tmp_path / "a.png").write_bytes(content)
    assert kind_of(tmp_path / "a.png") == kind


def test_an_unaccepted_type_is_named(tmp_path: Path) -> None:
    """The message says what the file is."""
    (tmp_path / "a.png").write_bytes(b"GIF89a....")
    with pytest.raises(ItemError, match="image/gif"):
        identify(str(tmp_path / "a.png"), shown="a.png", max_bytes=10)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Two gigabytes too many cost no hashing."""
    with (tmp_path / "a.png").open("wb") as file:
        file.write(PNG)
        file.truncate(3 * 1024**3)
    started = time.monotonic()
    assert kind_of(tmp_path / "a.png", 2 * 1024**3) == "file_too_large"
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("name", ["nowhere.png", "a" * 300, "x\0y", "file.png/below"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    """What can't be opened is missing, whatever the reason."""
    (tmp_path / "file.png").write_bytes(PNG)
    assert kind_of(tmp_path / name) == "missing_file"


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    """A write during the hashing is noticed."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)

    def write() -> None:
        path.write_bytes(PNG + b"more")

    with pytest.raises(ItemError) as caught:
        identify(str(path), shown="a", max_bytes=10_000, check_cancelled=write)
    assert (caught.value.failure.kind, caught.value.failure.retryable) == ("source_changed", True)


def test_hashing_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is asked for each chunk, and the descriptor is closed when it raises."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(PNG)
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt

    before = len(os.listdir("/dev/fd"))
    with pytest.raises(KeyboardInterrupt):
        identify(str(tmp_path / "a.png"), shown="a", max_bytes=10_000, check_cancelled=check)
    assert (len(asked), len(os.listdir("/dev/fd"))) == (2, before)


class TestIdentifier:
    """What is remembered, and when it is trusted."""

    def make(self, ledger: MemoryLedger) -> Identifier:
        return Identifier(ledger, ManualClock(NOW), max_bytes=10_000)

    def write(self, path: Path, seconds_ago: float) -> None:
        path.write_bytes(PNG)
        moment = NOW.timestamp() - seconds_ago
        os.utime(path, (moment, moment))

    async def test_a_known_file_is_not_read(self, tmp_path: Path) -> None:
        """With an equal identity the remembered hash is taken, even a made-up one."""
        path = tmp_path / "a.png"
        self.write(path, 60)
        ledger = MemoryLedger()
        first = self.make(ledger)
        identity = first.identify(str(path), "a").identity
        assert [new[0] for new in first.take_new()] == [str(path)]
        assert first.take_new() == []
        await ledger.remember_identities([(str(path), identity, "image/png", "made up")])
        again = self.make(ledger)
        again.expect([(str(path), path.name)])
        assert again.identify(str(path), "a").sha256 == "made up"
        assert again.take_new() == []

    async def test_a_changed_file_is_read(self, tmp_path: Path) -> None:
        """A different size, time or inode means hashing."""
        path = tmp_path / "a.png"
        self.write(path, 60)
        ledger = MemoryLedger()
        old = FileIdentity(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)
        await ledger.remember_identities([(str(path), old, "image/png", "made up")])
        identifier = self.make(ledger)
        identifier.expect([(str(path), path.name)])
        assert identifier.identify(str(path), "a").sha256 == hashlib.sha256(PNG).hexdigest()

    @pytest.mark.parametrize(("seconds_ago", "remembered"), [(0, 0), (1.9, 0), (-1.9, 0), (2.1, 1), (86_400, 1)])
    def test_fresh_files_are_not_remembered(self, tmp_path: Path, seconds_ago: float, remembered: int) -> None:
        """A file written within two seconds of hashing may change behind its time stamp."""
        path = tmp_path / "a.png"
        self.write(path, seconds_ago)
        identifier = self.make(MemoryLedger())
        identifier.identify(str(path), "a")
        assert len(identifier.take_new()) == remembered

    async def test_a_remembered_file_obeys_todays_limits(self, tmp_path: Path) -> None:
        """A limit lowered since then counts."""
        path = tmp_path / "a.png"
        self.write(path, 60)
        ledger = MemoryLedger()
        first = self.make(ledger)
        first.identify(str(path), "a")
        await ledger.remember_identities(first.take_new())
        strict = Identifier(ledger, ManualClock(NOW), max_bytes=10)
        strict.expect([(str(path), path.name)])
        with pytest.raises(ItemError, match="the limit is 10"):
            strict.identify(str(path), "a")

    def test_a_file_that_changes_during_the_run_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is known is looked at again, though not for every row that names it."""
        path = tmp_path / "a.png"
        self.write(path, 60)
        identifier = self.make(MemoryLedger())
        first = identifier.identify(str(path), "a")
        assert identifier.identify(str(path), "a") is first
        path.write_bytes(PNG + b"more")
        monkeypatch.setattr(module, "CHECKED_SECONDS", 0.0)
        assert identifier.identify(str(path), "a").identity.size_bytes == len(PNG) + 4


def test_large_files_are_read_ahead_side_by_side(tmp_path: Path) -> None:
    """Some are begun before their turn, and no more; each is told of when asked for, also what is wrong with it."""
    files = [tmp_path / f"{n}.png" for n in range(12)]
    for n, path in enumerate(files):
        path.write_bytes((b"no picture" if n == 2 else PNG) + bytes([n]) * LARGE_BYTES)
        os.utime(path, (1, 1))
    began: list[str] = []

    def check() -> None:
        began.append(threading.current_thread().name)

    identifier = Identifier(MemoryLedger().identities, SystemClock(), max_bytes=2**31, check_cancelled=check)
    identifier.expect([(str(path), path.name) for path in files])
    for n, path in enumerate(files[:4]):
        if n == 2:
            with pytest.raises(ItemError, match=r"2\.png: neither an image nor a video"):
                identifier.identify(str(path), path.name)
        else:
            found = identifier.identify(str(path), path.name)
            assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    identifier.close()
    assert began == [], "they were all read ahead, none in this thread"
    assert identifier.identify(str(files[11]), "11.png").sha256 == hashlib.sha256(files[11].read_bytes()).hexdigest()
    assert began, "after close each is read when asked for"


def test_what_was_read_ahead_for_a_failed_item_takes_no_place_for_ever(tmp_path: Path) -> None:
    """An item ends with its first bad medium, and nobody asks for those behind it; those of others are read ahead."""
    files = [tmp_path / f"{n}.png" for n in range(2 * FILES_AHEAD)]
    for path in files:
        path.write_bytes(PNG + b"x" * LARGE_BYTES)
    began: list[str] = []
    identifier = Identifier(
        MemoryLedger(), SystemClock(), max_bytes=2**31, check_cancelled=lambda: began.append("in this thread")
    )
    identifier.expect([(str(path), path.name) for path in (tmp_path / "missing.png", *files[:FILES_AHEAD])])
    with pytest.raises(ItemError, match=r"missing\.png"):
        identifier.identify(str(tmp_path / "missing.png"), "missing.png")
    later = files[FILES_AHEAD:]
    identifier.expect([(str(path), path.name) for path in later])
    for path in later:
        identifier.identify(str(path), path.name)
    identifier.close()
    assert began == []


def test_waiting_for_a_file_read_ahead_can_be_cancelled(tmp_path: Path) -> None:
    """Whoever waits is asked to go on now and then, and what is read is abandoned."""
    reading, go_on = threading.Event(), threading.Event()

    def read(_location: str, _shown: str, check: Callable[[], None]) -> None:
        reading.set()
        while not go_on.wait(0.01):
            check()

    def cancelled() -> None:
        raise InterruptedError

    ahead = Ahead(read, check_cancelled=cancelled)
    ahead.begin("a", "a")
    assert reading.wait(5)
    with pytest.raises(InterruptedError):
        ahead.take("a")
    ahead.close()
    assert ahead.take("a") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one niceness")
def test_who_reads_ahead_steps_back() -> None:
    """Its threads, and no others: the event loop's thread keeps its place."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    ahead = Ahead(lambda *_: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), check_cancelled=lambda: None)
    ahead.begin("a", "a")
    assert ahead.take("a") == min(before + NICENESS, 19)
    ahead.close()
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
