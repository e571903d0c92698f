"""What a program did to one folder, call by call, read from the log that strace kept of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CALLS = "write,pwrite64,writev,fsync,fdatasync,ftruncate,rename,unlink,openat,newfstatat,fstat"
OPTIONS = ["-y", "-v", "-xx", "-s", "16777216", "-e", f"trace={CALLS}", "-e", "signal=none"]

_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_UNFINISHED = "<unfinished ...>"
_DONE = re.compile(r"\) += (?P<result>-?\d+).*")
_HEX = r"(?:\\x[0-9a-f]{2})*"
_PATH = re.compile(rf"<({_HEX})>")
_STRING = re.compile(rf'"({_HEX})"')


class Call(NamedTuple):
    """A call that succeeded, entered at the moment ``began`` and left at ``ended`` (counts of lines of the log)."""

    began: int
    ended: int
    name: str
    text: str
    result: int

    @property
    def path(self) -> Path:
        """The file that its first descriptor is of."""
        return Path(_unhex(_PATH.search(self.text)[1]).decode())  # type: ignore[index]

    @property
    def strings(self) -> list[bytes]:
        """Its strings."""
        return [_unhex(found) for found in _STRING.findall(self.text)]

    @property
    def last_number(self) -> int:
        """Its last argument."""
        return int(self.text.rsplit(", ", 1)[1])

    @property
    def inode(self) -> int:
        """What ``stat`` said."""
        return int(re.search(r"st_ino=(\d+)", self.text)[1])  # type: ignore[index]


def read_log(path: Path) -> Iterator[Call]:
    """The calls in the order in which they ended."""
    open_calls: dict[str, tuple[int, str]] = {}
    with path.open() as log:
        for moment, raw in enumerate(log):
            line = raw.rstrip("\n")
            found = _CALL.match(line) or _RESUMED.match(line)
            if not found:
                raise ValueError(f"strace wrote what can't be read: {line[:200]}")
            began, before = open_calls.pop(found["thread"], (moment, ""))
            rest = before + found["rest"]
            if rest.endswith(_UNFINISHED):
                open_calls[found["thread"]] = began, rest.removesuffix(_UNFINISHED)
                continue
            done = _DONE.search(rest)
            if done and int(done["result"]) >= 0:
                yield Call(began, moment, found["name"], rest[: done.start()], int(done["result"]))


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
