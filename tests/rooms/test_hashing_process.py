"""Small files are identified by a process beside the run, to the same end as without it, whatever becomes of it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ItemError
from pipeline.ledger.memory import MemoryLedger
from pipeline.media import hashing_process
from pipeline.media.hashing_process import ENOUGH_FILES, HashingProcess
from pipeline.media.identify import LARGE_BYTES, Identified, Identifier, identify
from tests.support import generated

MAX_BYTES = 2**31
COUNT = ENOUGH_FILES + 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, and among them whatever else lies about in folders."""
    picture = generated.image("JPEG", 1)
    for number in range(COUNT):
        (tmp_path / f"{number:04d}.jpg").write_bytes(picture + number.to_bytes(4, "big"))
    (tmp_path / "0100.jpg").write_bytes(b"")
    (tmp_path / "0101.jpg").write_bytes(b"no picture at all")
    (tmp_path / "0102.jpg").unlink()
    (tmp_path / "0103.jpg").unlink()
    (tmp_path / "0103.jpg").symlink_to("0000.jpg")
    (tmp_path / "0104.jpg").unlink()
    os.mkfifo(tmp_path / "0104.jpg")
    for name in ("0105.jpg", f"{COUNT - 1:04d}.jpg"):
        (tmp_path / name).write_bytes(picture + bytes(LARGE_BYTES))
    return tmp_path


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[HashingProcess]:
    """One that would be begun on any machine, and has ended after the test."""
    monkeypatch.setattr(hashing_process, "_cores", lambda: 2)
    process = HashingProcess(max_bytes=MAX_BYTES, check_cancelled=lambda: None)
    yield process
    process.close()


def locations(folder: Path) -> list[str]:
    return [str(folder / f"{number:04d}.jpg") for number in range(COUNT)]


def come_up(process: HashingProcess) -> None:
    """Wait until it answers."""
    ends_at = time.monotonic() + 30
    while not process._has_come_up():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def alone(location: str) -> Identified | None:
    try:
        return identify(location, shown=location, max_bytes=MAX_BYTES)
    except ItemError:
        return None


def test_it_says_what_a_look_at_the_file_says(folder: Path, process: HashingProcess) -> None:
    """What can't be used, and what is large, it leaves to who asks."""
    files = locations(folder)
    assert process.expect(files)
    come_up(process)
    before_ns = time.time_ns() - 60_000_000_000
    found = {location: process.found(location) for location in files}
    large = [location for location in files if os.path.lexists(location) and os.lstat(location).st_size >= LARGE_BYTES]
    assert list(process.large) == large
    for location in files:
        answer = found[location]
        if location in large:
            assert answer is None
        elif answer is None:
            assert alone(location) is None
        else:
            assert answer[1] == alone(location)
            assert before_ns < answer[0] <= time.time_ns()
    assert sum(answer is not None for answer in found.values()) == COUNT - 7


def test_few_files_begin_no_process(folder: Path, process: HashingProcess) -> None:
    """Most runs have few new files; a process takes longer to come up than they do."""
    assert not process.expect(locations(folder)[: ENOUGH_FILES - 1])
    assert process._process is None
    assert process.found(str(folder / "0000.jpg")) is None


def test_nobody_waits_for_it_to_come_up(folder: Path, process: HashingProcess) -> None:
    """Until then who asks looks for themselves, and what they have done is not asked of it again."""
    files = locations(folder)
    process.expect(files)
    began_at = time.monotonic()
    assert process.found(files[0]) is None
    assert time.monotonic() - began_at < 0.5
    come_up(process)
    assert process.found(files[1]) is not None
    assert process.found(files[0]) is None


def identified(folder: Path, identifier: Identifier) -> dict[str, Identified | None]:
    files = locations(folder)
    identifier.expect([(location, location) for location in files])
    found: dict[str, Identified | None] = {}
    for location in files:
        try:
            found[location] = identifier.identify(location, location)
        except ItemError:
            found[location] = None
    return found


@pytest.mark.parametrize("trouble", ["none", "dies", "dies while it is asked", "can't be begun", "says rubbish"])
def test_a_run_finds_the_same_with_it_and_without(
    folder: Path, process: HashingProcess, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Whatever becomes of it."""
    for location in locations(folder):  # at rest, so that nothing depends on when it is looked at
        if os.path.lexists(location):
            os.utime(location, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    identities = MemoryLedger().identities
    expected = identified(folder, Identifier(identities, SystemClock(), max_bytes=MAX_BYTES))
    if trouble == "can't be begun":
        monkeypatch.setattr(hashing_process.sys, "executable", "/nowhere/python")
    if trouble == "says rubbish":
        monkeypatch.setattr(hashing_process, "_PROGRAM", "print('Segmentation fault', flush=True); input()")
    process.expect(locations(folder))
    if trouble in ("none", "dies", "dies while it is asked"):
        come_up(process)
    if trouble == "says rubbish":
        assert process._look(10_000)  # it has been said before the first file is looked for
    if trouble == "dies while it is asked":
        process._ask()
    if trouble.startswith("dies"):
        assert process._process is not None
        process._process.kill()
        process._process.wait()
    identifier = Identifier(identities, SystemClock(), max_bytes=MAX_BYTES, small_files=process)
    assert identified(folder, identifier) == expected
    assert process._is_gone == (trouble != "none")
    identifier.close()
    assert process._process is None


class Stop(BaseException):
    """The run is to end."""


def test_a_process_that_hangs_can_be_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its disk has gone away: who waits for it is asked now and then whether to go on."""
    monkeypatch.setattr(hashing_process, "_cores", lambda: 2)

    def stop() -> None:
        raise Stop

    process = HashingProcess(max_bytes=MAX_BYTES, check_cancelled=stop)
    process.expect(locations(folder))
    come_up(process)
    assert process._process is not None
    pid = process._process.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Stop):
        process.found(locations(folder)[0])
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_ends_with_whoever_began_it(folder: Path, process: HashingProcess) -> None:
    """A run that is killed leaves none behind: their input ends."""
    process.expect(locations(folder))
    come_up(process)
    assert process._process is not None
    assert process._process.stdin is not None
    process._process.stdin.close()
    assert process._process.wait(timeout=10) == 0


def test_it_can_be_begun_again(folder: Path, process: HashingProcess) -> None:
    """A source may be read twice."""
    for _ in range(2):
        assert process.expect(locations(folder))
        come_up(process)
        assert process.found(locations(folder)[0]) is not None
        process.close()
