"""At the end of a run: results.jsonl keeps the current line of each key, replaced ones go to superseded.jsonl.

Nothing is lost at any instant: replaced lines are durable in their new place before the new file takes the name, and a
ledger that has not heard of the new file finds another inode and reads it.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from anyio import CancelScope
from anyio.to_thread import run_sync

from pipeline.errors import StopForHuman
from pipeline.results import durable, results_file
from pipeline.results.results_file import ResultsFile
from pipeline.results.run_folder import RunFolder
from pipeline.whole import check_length, trouble

SUPERSEDED = "superseded.jsonl"

Extent = tuple[int, int]


async def compact(folder: RunFolder, *, source_was_read: bool) -> bool:
    """Leave one line for each key; whether there was anything to do. For when no room is at work any more.

    Where SOURCE was read to its end, lines of wrong rows that this run did not meet again go as well.
    """
    with CancelScope(shield=True):
        if not await _is_known_to_its_end(folder):
            return False
        if source_was_read:
            await folder.ledger.drop_wrong_rows(folder.opened_at_end)
        current = await folder.ledger.extents()
        superseded = gaps(current, folder.results.end)
        if superseded:
            await run_sync(_rewrite, folder.results, current, superseded)
            await folder.ledger.pack(folder.results.offset())
    return bool(superseded)


async def _is_known_to_its_end(folder: RunFolder) -> bool:
    """Whether the ledger has heard of every line: one that is behind would take current lines for replaced ones."""
    known, now = await folder.ledger.taken_in(), folder.results.offset()
    return known is not None and (known.inode, known.size_bytes) == (now.inode, now.size_bytes)


def gaps(extents: Iterable[Extent], end: int) -> list[Extent]:
    """The stretches from 0 to ``end`` that ``extents`` leave out."""
    left_out, position = [], 0
    for start, stop in (*extents, (end, end)):
        if start > position:
            left_out.append((position, start))
        position = stop
    return left_out


def _rewrite(results: ResultsFile, current: Sequence[Extent], superseded: Sequence[Extent]) -> None:
    folder = results.path.parent
    temporary = results_file.temporary(folder)
    try:
        _append(results, superseded, folder / SUPERSEDED)
        fd = results_file.open_regular(temporary, os.O_APPEND | os.O_TRUNC)
        try:
            _copy(results, current, fd)
            results_file.lock(fd, temporary)  # before the name is taken: else another run could lock it first
            temporary.replace(results.path)
        except BaseException:
            os.close(fd)
            raise
        results.replace_with(fd)
        durable.sync_folder(folder)
    except OSError as error:
        with suppress(OSError):  # the next run does it
            temporary.unlink(missing_ok=True)
        what = f"{trouble(error)} to compact {results.path} ({error.strerror})"
        raise StopForHuman(f"{what}: every result is there. See to the disk, then run again") from error


def _append(results: ResultsFile, extents: Sequence[Extent], path: Path) -> None:
    fd = results_file.open_regular(path, os.O_APPEND)
    end = os.fstat(fd).st_size
    try:
        _copy(results, extents, fd)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, end)
        raise
    finally:
        os.close(fd)
    durable.sync_folder(path.parent)


def _copy(results: ResultsFile, extents: Sequence[Extent], fd: int) -> None:
    length = os.fstat(fd).st_size + sum(end - start for start, end in extents)
    for start, end in extents:
        last = b""
        for chunk in results.read_range(start, end):
            durable.write_all(fd, chunk)
            last = chunk
        if not last.endswith(b"\n"):
            raise StopForHuman(
                f"The ledger does not agree with {results.path}: delete ledger.sqlite3 beside it, then run again"
            )
    check_length(fd, length)
    durable.sync_data(fd)
