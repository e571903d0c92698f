"""A folder on a disk that may lose its power: from a recording, every state that a machine may wake up with.

The rules are those of POSIX and no stricter. Of each file stays what was written before its last sync; of the rest
any part may be there. A name stays once the folder has been synced after it was made, moved or removed; until then
each of these may have happened or not. Files are chosen for independently of one another and of their names.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.crash.recording import Call

T = TypeVar("T")


class Span(NamedTuple):
    """From entering a call to leaving it."""

    began: int
    ended: int


class Write(NamedTuple):
    """A change of a file's bytes; ``data`` is None where it was cut at ``offset``."""

    span: Span
    offset: int
    data: bytes | None


class Naming(NamedTuple):
    """A change of the folder: what names mean from now on, None where nothing."""

    span: Span
    names: dict[str, int | None]


@dataclass
class File:
    """A file, whatever its name."""

    initial: bytes = b""
    size: int = 0
    inode: int = 0
    writes: list[Write] = field(default_factory=list)
    syncs: list[Span] = field(default_factory=list)


class State(NamedTuple):
    """What the machine wakes up with."""

    moment: int
    files: dict[str, bytes]
    inodes: dict[str, int]
    """What the inodes of these files were when the recording was made."""
    words: list[str]
    how: str


class Disk:
    """The recorded life of one folder."""

    def __init__(self, folder: Path, calls: Iterable[Call], *, initial: dict[str, bytes], words: Path) -> None:
        self._folder = folder
        self._words_path = words
        self.files = [File(initial=content, size=len(content)) for content in initial.values()]
        self._first_names = {name: number for number, name in enumerate(initial)}
        self._names: dict[str, int] = dict(self._first_names)
        self._namings: list[Naming] = []
        self._syncs: list[Span] = []
        self._words: list[tuple[int, str]] = []
        self.moments = [0]
        """When something had just begun or ended."""
        for call in calls:
            span = Span(call.began, call.ended)
            if self._take(call, span):
                self.moments += [span.began, span.ended]
        self.moments = [moment + 1 for moment in sorted(set(self.moments))]

    def state(self, moment: int, chance: random.Random) -> State:
        """One of the states in which a power cut just before ``moment`` may leave the folder."""
        kept, naming_how = self._surviving(self._namings, self._syncs, moment, chance)
        names: dict[str, int | None] = dict(self._first_names)
        for naming in kept:
            names |= naming.names
        files, inodes, how = {}, {}, [f"names: {naming_how}"]
        for name, number in names.items():
            if number is not None and not name.endswith("-shm"):  # SQLite makes that one anew
                files[name], chosen = self._content(self.files[number], moment, chance)
                inodes[name] = self.files[number].inode
                how.append(f"{name}: {chosen}")
        words = [word for said_at, word in self._words if said_at < moment]
        return State(moment, files, inodes, words, "; ".join(how))

    def _take(self, call: Call, span: Span) -> bool:
        """Take in what ``call`` did; whether it changed or said anything."""
        match call.name:
            case "rename":
                old, new = (self._name(Path(raw.decode())) for raw in call.strings)
                if old and new:
                    self._rename(span, {old: None, new: self._names[old]})
                return bool(old and new)
            case "unlink":
                name = self._name(Path(call.strings[0].decode()))
                if name:
                    self._rename(span, {name: None})
                return bool(name)
            case "openat":
                return self._open(call, span)
            case "writev":
                if call.path == self._words_path:
                    self._words.append((span.began, b"".join(call.strings).decode().rstrip("\n")))
                return call.path == self._words_path
            case "fsync" if call.path == self._folder:
                self._syncs.append(span)
                return True
        name = self._name(call.path) if "<" in call.text else None
        if name is None:
            return False
        file = self.files[self._names[name]]
        match call.name:
            case "fstat" | "newfstatat":
                file.inode = call.inode
                return False
            case "fsync" | "fdatasync":
                file.syncs.append(span)
            case "ftruncate":
                self._write(file, Write(span, call.last_number, None))
            case "write":
                self._write(file, Write(span, file.size, call.strings[-1][: call.result]))
            case "pwrite64":
                self._write(file, Write(span, call.last_number, call.strings[-1][: call.result]))
        return True

    def _open(self, call: Call, span: Span) -> bool:
        name = self._name(Path(call.strings[0].decode()))
        if not name:
            return False
        if name not in self._names:
            self.files.append(File())
            self._rename(span, {name: len(self.files) - 1})
            return True
        if "O_TRUNC" in call.text:
            self._write(self.files[self._names[name]], Write(span, 0, None))
        return "O_TRUNC" in call.text

    def _name(self, path: Path) -> str | None:
        return path.name if path.parent == self._folder else None

    def _rename(self, span: Span, names: dict[str, int | None]) -> None:
        self._namings.append(Naming(span, names))
        for name, number in names.items():
            if number is None:
                del self._names[name]
            else:
                self._names[name] = number

    @staticmethod
    def _write(file: File, write: Write) -> None:
        file.writes.append(write)
        file.size = write.offset if write.data is None else max(file.size, write.offset + len(write.data))

    def _content(self, file: File, moment: int, chance: random.Random) -> tuple[bytes, str]:
        """What ``file`` holds then."""
        durable, pending = _divided(file.writes, file.syncs, moment)
        content = bytearray(file.initial)
        for write in durable:
            _apply(content, write)
        how = chance.choice(["none", "all", "prefix", "subset", "torn", "zeros", "garbage"]) if pending else "durable"
        kept, torn = _chosen(pending, how, chance)
        for write in kept:
            _apply(content, write)
        if torn is not None and torn.data is not None:
            cut = chance.randrange(len(torn.data) + 1)
            rest = len(torn.data) - cut
            filling = {"torn": b"", "zeros": bytes(rest), "garbage": chance.randbytes(rest)}[how]
            _apply(content, torn._replace(data=torn.data[:cut] + filling))
        return bytes(content), how

    @staticmethod
    def _surviving(
        namings: Sequence[Naming], syncs: Sequence[Span], moment: int, chance: random.Random
    ) -> tuple[Iterator[Naming], str]:
        durable, pending = _divided(namings, syncs, moment)
        how = chance.choice(["none", "all", "prefix", "subset"]) if pending else "durable"
        return iter([*durable, *_chosen(pending, how, chance)[0]]), how


Change = TypeVar("Change", Write, Naming)


def _divided(changes: Sequence[Change], syncs: Sequence[Span], moment: int) -> tuple[list[Change], list[Change]]:
    """Changes made before ``moment``: those that a sync had made durable by then, and the rest."""
    synced = max((sync.began for sync in syncs if sync.ended < moment), default=0)
    made = [change for change in changes if change.span.began < moment]
    return [c for c in made if c.span.ended < synced], [c for c in made if c.span.ended >= synced]


def _chosen(pending: Sequence[Change], how: str, chance: random.Random) -> tuple[list[Change], Change | None]:
    """Which of the changes are there, and the one that is there in part."""
    if how in ("none", "durable"):
        return [], None
    if how == "all":
        return list(pending), None
    if how == "subset":
        return [change for change in pending if chance.random() < 0.5], None
    cut = chance.randrange(len(pending))
    return list(pending[:cut]), None if how == "prefix" else pending[cut]


def _apply(content: bytearray, write: Write) -> None:
    """A hole before what is written reads as zeros."""
    if write.data is None:
        del content[write.offset :]
        return
    content.extend(bytes(max(0, write.offset - len(content))))
    content[write.offset : write.offset + len(write.data)] = write.data
