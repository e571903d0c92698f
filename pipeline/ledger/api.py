"""CONTRACT of the ledger: what is remembered between items and between runs.

The ledger may be behind ``results.jsonl``, never ahead of it. All async methods may be called by many tasks at
once; they are group-committed, and return when what they wrote is committed (WAL, ``synchronous=NORMAL``: it
survives the death of the process, not always a power cut; nothing in here is needed to keep a result).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline.records import Content, FileIdentity, Item, RemoteFile, Status

SOURCE_TOTAL = "source_total"
"""Name under which the number of SOURCE's items is learnt (``Ledger.learn``), once it is known."""

SOURCE_NAME = "source"
"""Name under which a run folder's SOURCE is learnt."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the ledger knows of the current line of a key."""

    key: str
    status: Status
    fingerprint: str | None
    kind: str | None
    """``error.kind``, None where succeeded."""
    retryable: bool
    emulated: bool
    """Whether the line's backend is the emulator."""
    offset: int
    """Where the line starts in results.jsonl, in bytes."""
    size_bytes: int
    """Length of the line with its newline."""
    ambiguous_runs: int = 0
    media_sha256: str | None = None
    """SHA-256 hex of the only medium, else over the media's values joined by newlines; None where any is unknown."""
    wrong_row: bool = False
    """Whether the line stands for a row without a usable key of its own (``line:N``, ``key#line:N``)."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A key met in SOURCE, offered to ``admit``; keys are valid Unicode (no lone surrogates)."""

    key: str
    position: int


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's reply to a candidate."""

    duplicate: bool
    """Another position of this SOURCE came first with the same key, in this run."""
    mark: Mark | None
    in_doubt: bool = False
    """An earlier run was killed while a call for this key was out."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file that this run folder's runs have uploaded, by its content."""

    sha256: str
    file: RemoteFile
    last_used_at: datetime


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A paid call that is about to be sent."""

    key: str
    attempt: int
    started_at: datetime


class Offset(msgspec.Struct, frozen=True, kw_only=True):
    """How much of which results.jsonl the ledger has taken in."""

    inode: int
    size_bytes: int
    mtime_ns: int


class Doubts(msgspec.Struct, frozen=True, kw_only=True):
    """What a ledger knows of calls whose fate is unknown: their items' keys, sorted, as of ``taken_in``."""

    keys: list[str] = []
    taken_in: Offset | None = None
    """How much of results.jsonl the ledger knew then; lines that follow close their items' intents."""


class Identities(Protocol):
    """Hashes of files hashed before; answered synchronously, in a worker thread."""

    def known(self, locations: Sequence[str]) -> dict[str, tuple[FileIdentity, str, str]]:
        """For each location that is known: its identity then, MIME type and SHA-256."""
        ...


class Ledger(Protocol):
    """The memory of a run folder, open for one run. See the module docstring for what is promised."""

    # the done-set -----------------------------------------------------------------------------------------
    async def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        """Note that this run has seen these keys, and tell what is known of each, in the same order."""
        ...

    async def mark(self, marks: Sequence[Mark], offset: Offset) -> None:
        """Take in lines that are durable in results.jsonl: later marks of a key replace earlier ones; their
        intents are closed. Called only after the file was synced."""
        ...

    async def count_removed(self) -> int:
        """How many keys have a line but were not admitted by this run; call when SOURCE was read to its end.

        Lines of wrong rows don't count: they vanish.
        """
        ...

    # calls ------------------------------------------------------------------------------------------------
    async def intend(self, intent: Intent) -> None:
        """Note a paid call before it is sent; replaces an earlier intent of the key."""
        ...

    async def settle(self, key: str) -> None:
        """Close the intent of ``key``: its call certainly was not billed, or its answer is known."""
        ...

    async def in_doubt(self) -> list[str]:
        """Keys whose intents earlier runs left open, and neither a line nor a call of this run has closed since."""
        ...

    async def open_intents(self) -> list[str]:
        """Keys of every intent still open, of this run too: at the end of a run, what it leaves in doubt."""
        ...

    # uploads ----------------------------------------------------------------------------------------------
    async def remember_upload(self, upload: Upload) -> None:
        """Insert or replace by file name. Returns before it is committed: whatever is written later is so after it."""
        ...

    async def forget_uploads(self, names: Sequence[str]) -> None:
        """These files no longer exist remotely. Unknown names are ignored."""
        ...

    async def touch_uploads(self, used: Sequence[tuple[str, datetime]]) -> None:
        """These files, by name, were used last at these times. Unknown names are ignored."""
        ...

    def uploads(self) -> AsyncGenerator[Upload]:
        """Every remembered upload of this endpoint and key, oldest use first; they may be forgotten meanwhile."""
        ...

    async def uploads_of(self, contents: Sequence[Content]) -> list[Upload]:
        """Those of them that hold one of ``contents``, latest use first."""
        ...

    # files on this machine --------------------------------------------------------------------------------
    async def remember_identities(self, found: Sequence[tuple[str, FileIdentity, str, str]]) -> None:
        """Remember (location, identity, MIME type, SHA-256)."""
        ...

    # passes -----------------------------------------------------------------------------------------------
    async def requeue(self, item: Item) -> None:
        """Keep an item, with what it has used up, for the next pass of this run."""
        ...

    def requeued(self) -> AsyncIterator[Item]:
        """Take the items kept for the next pass, in the order they were kept, each once."""
        ...

    # what is learnt ---------------------------------------------------------------------------------------
    async def learnt(self, name: str, not_before: datetime) -> str | None:
        """A value kept by ``learn`` at or after ``not_before``."""
        ...

    async def learn(self, name: str, value: str, at: datetime) -> None:
        """Keep ``value`` (text) under ``name``."""
        ...


class RunLedger(Ledger, Protocol):
    """The ledger as the owner of the run folder sees it: what opening and compacting it need besides."""

    @property
    def identities(self) -> Identities:
        """To be asked from worker threads while the ledger is open."""
        ...

    async def taken_in(self) -> Offset | None:
        """The offset last given to ``mark`` or ``pack``; None where unknown."""
        ...

    async def rebuild(self, marks: Iterable[Mark]) -> None:
        """Forget every line and take in ``marks`` instead (iterated in a worker thread). Intents stay as they are.

        Until ``mark`` gives one, the offset is unknown.
        """
        ...

    async def holds_real_lines(self) -> bool:
        """Whether any current line is of another backend than the emulator."""
        ...

    async def drop_wrong_rows(self, before: int) -> int:
        """Forget lines of wrong rows that start before this offset and were not admitted by this run; how many."""
        ...

    async def extents(self) -> list[tuple[int, int]]:
        """Start and end of the stretches of results.jsonl that hold current lines, in order, adjacent ones joined."""
        ...

    async def pack(self, offset: Offset) -> None:
        """The current lines now lie one behind the other, in their order, in the file of ``offset``."""
        ...


def join_extents(lines: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offset and size of lines in the order of the file, as ``RunLedger.extents`` gives them."""
    extents: list[tuple[int, int]] = []
    start = end = 0
    for offset, size_bytes in lines:
        if offset != end:
            if end > start:
                extents.append((start, end))
            start = offset
        end = offset + size_bytes
    if end > start:
        extents.append((start, end))
    return extents


LedgerFactory = Callable[[Path], AbstractAsyncContextManager[RunLedger]]
"""Opens the ledger that lies at a path, for one run."""
