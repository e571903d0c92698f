"""Tells the story once for each of its system calls of one kind, to be killed there by strace: a program of its own.

    strace -f -e inject=CALL:signal=SIGKILL:when=FATAL python -m tests.crash.sweep CALL FATAL FOLDER NUMBER...

strace counts the calls of each thread and kind by themselves. So every child of this program does all its work in one
thread, and first makes as many calls that change nothing as bring it to its own distance from the fatal one: the
child of NUMBER dies entering its NUMBER-th call. FOLDER/NUMBER is the folder that it is told in, prepared before, and
FOLDER/NUMBER.words what it said. The first child that lives to the end is the last one.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread


async def _at_once(function: Any, *arguments: Any, **_options: Any) -> Any:
    return function(*arguments)


anyio.to_thread.run_sync = _at_once  # type: ignore[assignment]

from tests.crash import story  # noqa: E402  # what it imports keeps a reference to run_sync

BURN: dict[str, Callable[[int], object]] = {
    "write": lambda nothing: os.write(nothing, b"x"),
    "pwrite64": lambda nothing: os.pwrite(nothing, b"x", 0),
    "fdatasync": os.fdatasync,
    "fsync": os.fsync,
    "ftruncate": lambda nothing: os.ftruncate(nothing, 0),
    "rename": lambda _: os.rename(NOWHERE, NOWHERE),
    "unlink": lambda _: os.unlink(NOWHERE),
}
"""Calls that change nothing: on /dev/null, or on a name that does not exist."""
NOWHERE = "/nowhere/at/all"


def main(call: str, fatal: int, folder: Path, numbers: Sequence[int]) -> None:
    """One child after the other, until one is not killed."""
    for number in numbers:
        child = os.fork()
        if not child:
            _live(call, fatal - number, folder / str(number))
        if os.waitpid(child, 0)[1] == 0:
            break


def _live(call: str, to_burn: int, folder: Path) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    words = os.open(f"{folder}.words", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(to_burn):
        with suppress(OSError):
            BURN[call](nothing)
    say = story.saying(words)
    try:
        anyio.run(story.tell, folder, say)
    except BaseException as error:  # noqa: BLE001  # the child must end here, whatever it is
        say(f"failed {error!r}")
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), [int(number) for number in sys.argv[4:]])
