"""Decides, without I/O, who may use how much of the project's file storage and which files make room."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from pipeline.limits import REUSE_HORIZON_PLANNED_SECONDS
from pipeline.records import Content, RemoteFile

MOST_IDLE: Final = 4096
"""Files that nobody needs and that are kept in mind; of more, the ledger alone knows which they are."""

PUT_AT_ONCE: Final = 256


class Holding(msgspec.Struct, kw_only=True):
    """One content in the storage: planned (``file`` is None) or there; needed by ``needed_by`` unfinished items."""

    content: Content
    size_bytes: int
    needed_by: int = 0
    file: RemoteFile | None = None


class Granted(msgspec.Struct, frozen=True):
    """The bytes are reserved and the contents pinned."""


class MakeRoom(msgspec.Struct, frozen=True):
    """Withdraw and delete these files, tell ``dropped``, and ask again."""

    victims: tuple[RemoteFile, ...]


class LookBack(msgspec.Struct, frozen=True):
    """Recall files out of mind, oldest use first, do with them as with ``MakeRoom``'s, and ask again."""

    size_bytes: int


class Wait(msgspec.Struct, frozen=True):
    """Nothing can be freed now; unfinished items hold files that will become free."""


Decision = Granted | MakeRoom | LookBack | Wait


class StorageBudget:
    """The storage as this run sees it. Bytes count from the moment they are reserved until the file is gone.

    An item reserves all its contents at once or holds none, so items can't wait for one another in a circle.
    ``capacity_bytes`` begins as the published limit and falls to what we held when the service said "full".
    Of idle files those used last are kept in mind, about ``most_idle``; others only count, until ``recalled``.
    """

    def __init__(self, capacity_bytes: int, *, most_idle: int | None = MOST_IDLE) -> None:
        self.limit_bytes = capacity_bytes
        self.capacity_bytes = capacity_bytes
        self._most_idle = most_idle
        self._holdings: dict[Content, Holding] = {}
        self._idle: OrderedDict[Content, datetime] = OrderedDict()  # when it was used last, oldest first
        self._contents: dict[str, Content] = {}  # by the name of the file
        self._leaving: dict[str, int] = {}  # bytes of files that are being deleted, by name
        self._used_bytes = 0
        self._stored_bytes = 0
        self._out_of_mind = 0

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
        if missing == 0 or over <= 0 or not self._used_bytes:  # holding nothing, only the service can say no
            self._pin(needs)
            return Granted()
        if self._out_of_mind:
            return LookBack(over)
        victims = tuple(self._oldest(over, keep=needs.keys()))
        return MakeRoom(victims) if victims else Wait()

    def unsure(self, contents: Iterable[Content]) -> bool:
        """Whether any of ``contents`` may be there without being kept in mind."""
        return self._out_of_mind > 0 and any(content not in self._holdings for content in contents)

    def holds(self, content: Content) -> bool:
        """Whether ``content`` is planned, or there and kept in mind."""
        return content in self._holdings

    def needed_by(self, name: str) -> int:
        """How many items need the file ``name``."""
        content = self._contents.get(name)
        return self._holdings[content].needed_by if content else 0

    def known(self, content: Content, now: datetime) -> RemoteFile | None:
        """The file of ``content`` if it is there and lives long enough to be planned with."""
        holding = self._holdings.get(content)
        return holding.file if holding and holding.file and _alive(holding.file, now) else None

    def stored(self, content: Content, file: RemoteFile, now: datetime) -> None:
        """``file`` is there now (or its state changed)."""
        holding = self._holdings.get(content)
        if holding is None:
            holding = self._holdings[content] = Holding(content=content, size_bytes=file.size_bytes)
            self._used_bytes += file.size_bytes
        if holding.file is None:
            self._stored_bytes += holding.size_bytes
        else:
            self._contents.pop(holding.file.name, None)
        holding.file = file
        self._contents[file.name] = content
        self.capacity_bytes = max(self.capacity_bytes, self._stored_bytes)
        if not holding.needed_by:
            self._lay_idle(content, now)

    def release(self, contents: Iterable[Content], now: datetime) -> list[RemoteFile]:
        """One item needs ``contents`` no more. Returns the files that nobody needs now; drops unused reservations."""
        idle = []
        for content in contents:
            holding = self._holdings.get(content)
            if holding is None:
                continue
            holding.needed_by = max(0, holding.needed_by - 1)
            if holding.needed_by:
                continue
            if holding.file:
                idle.append(holding.file)
                self._lay_idle(content, now)
            else:
                del self._holdings[content]
                self._used_bytes -= holding.size_bytes
        return idle

    def put_out_of_mind(self) -> list[tuple[RemoteFile, datetime]]:
        """Let go of the idle files used longest ago, once there are a good many too many: which, and when used last."""
        put: list[tuple[RemoteFile, datetime]] = []
        if self._most_idle is None or len(self._idle) < self._most_idle + PUT_AT_ONCE:
            return put
        while len(self._idle) > self._most_idle:
            content, used_at = self._idle.popitem(last=False)
            file = self._holdings.pop(content).file
            assert file is not None  # noqa: S101 - only files lie idle
            del self._contents[file.name]
            put.append((file, used_at))
        self._out_of_mind += len(put)
        return put

    def recalled(self, content: Content, file: RemoteFile, now: datetime) -> None:
        """``file``, which was put out of mind, is the one of ``content``, about to be needed."""
        if content not in self._holdings and file.name not in self._leaving:
            self._holdings[content] = Holding(content=content, size_bytes=file.size_bytes, file=file)
            self._contents[file.name] = content
            self._lay_idle(content, now)
            self._out_of_mind = max(0, self._out_of_mind - 1)

    def nothing_out_of_mind(self) -> None:
        """No other files are there than those that are kept in mind."""
        self._out_of_mind = 0
        leaving_bytes = sum(self._leaving.values())
        self._used_bytes = leaving_bytes + sum(holding.size_bytes for holding in self._holdings.values())
        self._stored_bytes = leaving_bytes + sum(h.size_bytes for h in self._holdings.values() if h.file)

    def withdraw(self, file: RemoteFile) -> bool:
        """Let nobody need ``file`` from now on, for it is about to be deleted; it counts until ``dropped``.

        Returns whether it may be: not while an item needs it, and not a second time.
        """
        content = self._contents.get(file.name)
        if content is None or self._holdings[content].needed_by:
            return False
        self._leaving[file.name] = self._holdings.pop(content).size_bytes
        del self._contents[file.name], self._idle[content]
        return True

    def dropped(self, name: str) -> None:
        """The file ``name`` is gone. Whoever still needs its content keeps the reservation and uploads it again."""
        leaving_bytes = self._leaving.pop(name, 0)
        self._used_bytes -= leaving_bytes
        self._stored_bytes -= leaving_bytes
        content = self._contents.pop(name, None)
        if content is None:
            return
        holding = self._holdings[content]
        holding.file = None
        self._stored_bytes -= holding.size_bytes
        if not holding.needed_by:
            del self._holdings[content]
            self._idle.pop(content, None)
            self._used_bytes -= holding.size_bytes

    def refused(self) -> bool:
        """The service says "full": the capacity is what we store now, for others hold the rest.

        Returns whether we hold anything; call after the refused item has released its contents.
        """
        self.capacity_bytes = min(self.capacity_bytes, self.stored_bytes)
        return bool(self._holdings or self._out_of_mind or self._leaving)

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
            self._idle.pop(content, None)

    def _lay_idle(self, content: Content, used_at: datetime) -> None:
        self._idle[content] = used_at
        self._idle.move_to_end(content)

    def _oldest(self, over_bytes: int, *, keep: Iterable[Content]) -> Iterable[RemoteFile]:
        kept = set(keep)
        for content in self._idle:
            if over_bytes <= 0:
                return
            holding = self._holdings[content]
            if holding.file and content not in kept:
                over_bytes -= holding.size_bytes
                yield holding.file


def _alive(file: RemoteFile, now: datetime) -> bool:
    return file.usable_at(now, REUSE_HORIZON_PLANNED_SECONDS)
