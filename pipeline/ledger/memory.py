"""The ledger in memory: for tests and trials, and the plainest statement of what a ledger does."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from datetime import datetime

import msgspec

from pipeline.ledger.api import Admission, Candidate, Intent, Mark, Offset, Upload, join_extents
from pipeline.records import Content, FileIdentity, Item


class MemoryLedger:
    """A ``RunLedger`` (and its own ``Identities``) that forgets everything with the process."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._offset: Offset | None = None
        self._seen: dict[str, int] = {}
        self._intents: dict[str, Intent] = {}
        self._doubtful: set[str] = set()
        self._uploads: dict[str, Upload] = {}
        self._identities: dict[str, tuple[FileIdentity, str, str]] = {}
        self._requeued: list[Item] = []
        self._learnt: dict[str, tuple[str, datetime]] = {}

    def next_run(self) -> None:
        """Begin another run over the same memory, as opening a stored ledger again would."""
        self._seen.clear()
        self._requeued.clear()
        self._doubtful = set(self._intents)

    # the done-set

    async def admit(self, candidates: Sequence[Candidate]) -> list[Admission]:
        return [
            Admission(
                duplicate=self._seen.setdefault(candidate.key, candidate.position) != candidate.position,
                mark=self._marks.get(candidate.key),
                in_doubt=candidate.key in self._doubtful,
            )
            for candidate in candidates
        ]

    async def mark(self, marks: Sequence[Mark], offset: Offset) -> None:
        for mark in marks:
            self._marks[mark.key] = mark
            self._close_intent(mark.key)
        self._offset = offset

    async def count_removed(self) -> int:
        return sum(not mark.wrong_row and mark.key not in self._seen for mark in self._marks.values())

    # calls

    async def intend(self, intent: Intent) -> None:
        self._intents[intent.key] = intent
        self._doubtful.discard(intent.key)

    async def settle(self, key: str) -> None:
        self._close_intent(key)

    async def in_doubt(self) -> list[str]:
        return sorted(self._doubtful)

    async def open_intents(self) -> list[str]:
        return sorted(self._intents)

    def _close_intent(self, key: str) -> None:
        self._intents.pop(key, None)
        self._doubtful.discard(key)

    # uploads

    async def remember_upload(self, upload: Upload) -> None:
        self._uploads[upload.file.name] = upload

    async def forget_uploads(self, names: Sequence[str]) -> None:
        for name in names:
            self._uploads.pop(name, None)

    async def touch_uploads(self, used: Sequence[tuple[str, datetime]]) -> None:
        for name, used_at in used:
            if name in self._uploads:
                self._uploads[name] = msgspec.structs.replace(self._uploads[name], last_used_at=used_at)

    async def uploads(self) -> AsyncGenerator[Upload]:
        for upload in self._uploads_by_use():
            yield upload

    async def uploads_of(self, contents: Sequence[Content]) -> list[Upload]:
        held = [upload for upload in self._uploads_by_use() if (upload.sha256, upload.file.mime_type) in contents]
        return held[::-1]

    def _uploads_by_use(self) -> list[Upload]:
        return sorted(self._uploads.values(), key=lambda upload: (upload.last_used_at, upload.file.name))

    # files on this machine

    @property
    def identities(self) -> "MemoryLedger":
        return self

    def known(self, locations: Sequence[str]) -> dict[str, tuple[FileIdentity, str, str]]:
        return {location: self._identities[location] for location in locations if location in self._identities}

    async def remember_identities(self, found: Sequence[tuple[str, FileIdentity, str, str]]) -> None:
        self._identities.update({location: (identity, mime, sha256) for location, identity, mime, sha256 in found})

    # passes

    async def requeue(self, item: Item) -> None:
        self._requeued.append(item)

    async def requeued(self) -> AsyncIterator[Item]:
        taken, self._requeued = self._requeued, []
        for item in taken:
            yield item

    # what is learnt

    async def learnt(self, name: str, not_before: datetime) -> str | None:
        value, at = self._learnt.get(name, (None, not_before))
        return value if at >= not_before else None

    async def learn(self, name: str, value: str, at: datetime) -> None:
        self._learnt[name] = (value, at)

    # the run folder's side

    async def taken_in(self) -> Offset | None:
        return self._offset

    async def rebuild(self, marks: Iterable[Mark]) -> None:
        self._offset = None
        self._marks = {mark.key: mark for mark in marks}

    async def holds_real_lines(self) -> bool:
        return any(not mark.emulated for mark in self._marks.values())

    async def drop_wrong_rows(self, before: int) -> int:
        gone = [m.key for m in self._marks.values() if m.wrong_row and m.offset < before and m.key not in self._seen]
        for key in gone:
            del self._marks[key]
        return len(gone)

    async def extents(self) -> list[tuple[int, int]]:
        return join_extents((mark.offset, mark.size_bytes) for mark in self._in_file_order())

    async def pack(self, offset: Offset) -> None:
        position = 0
        for mark in self._in_file_order():
            self._marks[mark.key] = msgspec.structs.replace(mark, offset=position)
            position += mark.size_bytes
        self._offset = offset

    def _in_file_order(self) -> list[Mark]:
        return sorted(self._marks.values(), key=lambda mark: mark.offset)
