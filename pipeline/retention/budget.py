"""Decides, without I/O, who may use how much of the project's file storage and which files make room."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from pipeline.limits import REUSE_HORIZON_PLANNED_SECONDS
from pipeline.records import Content, RemoteFile


class Holding(msgspec.Struct, kw_only=True):
    """One content in the storage: planned (``file`` is None) or there; needed by ``needed_by`` unfinished items."""

    content: Content
    size_bytes: int
    needed_by: int = 0
    file: RemoteFile | None = None


class Granted(msgspec.Struct, frozen=True):
    """The bytes are reserved and the contents pinned."""


class MakeRoom(msgspec.Struct, frozen=True):
    """Delete these files, tell ``dropped``, and ask again."""

    victims: tuple[RemoteFile, ...]


class Wait(msgspec.Struct, frozen=True):
    """Nothing can be freed now; unfinished items hold files that will become free."""


Decision = Granted | MakeRoom | Wait


class StorageBudget:
    """The storage as this run sees it. Bytes count from the moment they are reserved until the file is gone.

    An item reserves all its contents at once or holds none, so items can't wait for one another in a circle.
    ``capacity_bytes`` begins as the published limit and falls to what we held when the service said "full".
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.limit_bytes = capacity_bytes
        self.capacity_bytes = capacity_bytes
        self._holdings: dict[Content, Holding] = {}  # oldest use first
        self._used_bytes = 0
        self._stored_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes reserved or stored."""
        return self._used_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of files that are there."""
        return self._stored_bytes

    def claim(self, needs: Mapping[Content, int]) -> Decision:
        """Pin ``needs`` (content to size in bytes) and reserve what is not there yet, or say what must happen first."""
        missing = sum(size for content, size in needs.items() if content not in self._holdings)
        over = self._used_bytes + missing - self.capacity_bytes
        if missing == 0 or over <= 0 or not self._holdings:  # holding nothing, only the service can say no
            self._pin(needs)
            return Granted()
        victims = tuple(self._idle(over, keep=needs.keys()))
        return MakeRoom(victims) if victims else Wait()

    def known(self, content: Content, now: datetime) -> RemoteFile | None:
        """The file of ``content`` if it is there and lives long enough to be planned with."""
        holding = self._holdings.get(content)
        return holding.file if holding and holding.file and _alive(holding.file, now) else None

    def stored(self, content: Content, file: RemoteFile) -> None:
        """``file`` is there now (or its state changed)."""
        holding = self._holdings.get(content)
        if holding is None:
            holding = self._holdings[content] = Holding(content=content, size_bytes=file.size_bytes)
            self._used_bytes += file.size_bytes
        if holding.file is None:
            self._stored_bytes += holding.size_bytes
        holding.file = file
        self.capacity_bytes = max(self.capacity_bytes, self._stored_bytes)

    def release(self, contents: Iterable[Content]) -> list[RemoteFile]:
        """One item needs ``contents`` no more. Returns the files that nobody needs now; drops unused reservations."""
        idle = []
        for content in contents:
            holding = self._holdings.pop(content, None)
            if holding is None:
                continue
            holding.needed_by = max(0, holding.needed_by - 1)
            if holding.needed_by or holding.file:
                self._holdings[content] = holding  # moved to the end: the latest use
            else:
                self._used_bytes -= holding.size_bytes
            if holding.file and not holding.needed_by:
                idle.append(holding.file)
        return idle

    def dropped(self, name: str) -> None:
        """The file ``name`` is gone. Whoever still needs its content keeps the reservation and uploads it again."""
        holding = next((h for h in self._holdings.values() if h.file and h.file.name == name), None)
        if holding is None:
            return
        holding.file = None
        self._stored_bytes -= holding.size_bytes
        if not holding.needed_by:
            del self._holdings[holding.content]
            self._used_bytes -= holding.size_bytes

    def refused(self) -> bool:
        """The service says "full": the capacity is what we store now, for others hold the rest.

        Returns whether we hold anything; call after the refused item has released its contents.
        """
        self.capacity_bytes = min(self.capacity_bytes, self.stored_bytes)
        return bool(self._holdings)

    def probe(self, needed_bytes: int) -> None:
        """Others may have freed some: let ``needed_bytes`` more be tried, up to the published limit."""
        self.capacity_bytes = min(self.limit_bytes, max(self.capacity_bytes, self._used_bytes + needed_bytes))

    def _pin(self, needs: Mapping[Content, int]) -> None:
        for content, size_bytes in needs.items():
            holding = self._holdings.get(content)
            if holding is None:
                holding = self._holdings[content] = Holding(content=content, size_bytes=size_bytes)
                self._used_bytes += size_bytes
            holding.needed_by += 1

    def _idle(self, over_bytes: int, *, keep: Iterable[Content]) -> Iterable[RemoteFile]:
        kept = set(keep)
        for content, holding in self._holdings.items():
            if over_bytes <= 0:
                return
            if holding.file and not holding.needed_by and content not in kept:
                over_bytes -= holding.size_bytes
                yield holding.file


def _alive(file: RemoteFile, now: datetime) -> bool:
    return file.usable_at(now, REUSE_HORIZON_PLANNED_SECONDS)
