"""The power fails: in every state that the disk may be in, the folder opens and holds all that was acknowledged."""

import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import anyio
import msgspec
import pytest

from pipeline.ledger.api import Offset, RunLedger
from tests.crash import story
from tests.crash.disk import Disk, State
from tests.crash.mutants import MUTANTS
from tests.crash.oracle import judge
from tests.crash.recording import OPTIONS, read_log
from tests.crash.strace import traced

SHORT = 200
LONG = 5000
"""States to wake up in."""


def recorded(folder: Path, *mutant: str) -> Disk:
    """The story, told and recorded."""
    story.begin(folder)
    initial = {file.name: file.read_bytes() for file in folder.iterdir()}
    log = folder.with_suffix(".log")
    done = traced(["-o", str(log), *OPTIONS], "-m", "tests.crash.told", folder, *mutant)
    assert done.returncode == 0, done.stderr
    return Disk(folder, read_log(log), initial=initial, words=Path(f"{folder}.words"))


def states(disk: Disk, count: int, seed: int = 1) -> list[State]:
    """``count`` different states, spread over all moments."""
    chance = random.Random(seed)
    found: dict[bytes, State] = {}
    while len(found) < count:
        for moment in disk.moments:
            state = disk.state(moment, chance)
            found.setdefault(digest(state), state)
    kept = chance.sample(list(found.values()), count)
    return sorted(kept, key=lambda state: state.moment)


def digest(state: State) -> bytes:
    """Equal for states that nothing can tell apart."""
    return sha256(repr((sorted(state.files.items()), state.words)).encode()).digest()


async def wake_up(state: State, folder: Path) -> None:
    """Lay the files out, and judge them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, content in state.files.items():
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, content)
        os.close(fd)
    results = folder / "results.jsonl"
    now_is = {state.inodes.get(results.name): os.stat(results).st_ino} if results.exists() else {}

    @asynccontextmanager
    async def with_inodes_of_the_recording(path: Path) -> AsyncIterator[RunLedger]:
        """The ledger knows results.jsonl by its inode, which a copy can't keep."""
        async with story.OPEN_LEDGER(path) as ledger:
            stored = ledger.taken_in

            async def taken_in() -> Offset | None:
                offset = await stored()
                if offset is None or offset.inode not in now_is:
                    return offset
                os.utime(results, ns=(offset.mtime_ns, offset.mtime_ns))
                return msgspec.structs.replace(offset, inode=now_is.pop(offset.inode))

            ledger.taken_in = taken_in  # type: ignore[method-assign]
            yield ledger

    await judge(folder, state.words, power_cut=True, open_ledger=with_inodes_of_the_recording)


def violations(disk: Disk, count: int, folder: Path) -> Iterator[str]:
    """What is wrong in any of ``count`` states."""
    for state in states(disk, count):
        try:
            anyio.run(wake_up, state, folder)
        except Exception as error:  # noqa: BLE001  # whatever it is, the folder was not mended by itself
            yield f"{error!r} at {state.moment} after {state.words[-1:]}: {state.how}"


@pytest.fixture
def awake() -> Iterator[Path]:
    """Where folders wake up; in memory where that can be had, since here nothing needs to last."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place) / "run"


@pytest.fixture(scope="module")
def disk(tracing_allowed: None, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """The story as it is."""
    return recorded(tmp_path_factory.mktemp("recorded") / "run")


def test_no_state_loses_what_was_acknowledged(disk: Disk, awake: Path) -> None:
    """A few hundred states of all moments."""
    assert list(violations(disk, SHORT, awake)) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_thousands_of_states(disk: Disk, awake: Path) -> None:
    """The same at length."""
    assert list(violations(disk, LONG, awake)) == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_explorer_finds_faults(tracing_allowed: None, tmp_path: Path, awake: Path, mutant: str) -> None:
    """Built into the commit path, each of these is found out."""
    found = violations(recorded(tmp_path / "recorded", mutant), SHORT, awake)
    assert any("was acknowledged" in violation for violation in found)
