"""A short life of a run folder, told by the product's own commit path: what the crash proofs interrupt.

The folder is as an earlier crash left it: whole lines, a torn tail, a salvage file, no ledger. Two runs follow, each of
which opens the folder, commits made-up outcomes in several batches, and compacts. Everything that was promised to
anybody outside is said in a word to a file descriptor at the moment it was promised.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio

from pipeline.clock import SystemClock
from pipeline.errors import Failure
from pipeline.events import Event
from pipeline.ledger.api import Candidate, Intent, LedgerFactory
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import Answer, Item, Outcome, Status, Usage
from pipeline.report.summary import Counting, write_summary
from pipeline.results.compaction import compact
from pipeline.results.record import encode, line_of
from pipeline.results.run_folder import SUMMARY, RunFolder, open_run_folder
from pipeline.results.stage import ResultsRoom
from pipeline.spec import RunSpec, SourceSpec
from pipeline.streams import Stream

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
OPEN_LEDGER = partial(open_sqlite_ledger, endpoint="https://e", key_hash="k", warn=lambda _: None)

Answers = Sequence[tuple[str, int]]
"""Keys with the version of their answer."""

Say = Callable[[str], None]

BEFORE: Answers = [("a", 1), ("b", 1), ("c", 1)]
SALVAGED: Answers = [("d", 1)]
RUNS: Sequence[Sequence[Answers]] = [
    [[("e", 1)], [("f", 1), ("d", 2), ("line:9", 1)], [("g", 1)]],
    [[("a", 2), ("f", 2)], [("h", 1)], [("a", 3)]],
]
"""Of each run the batches that arrive together. ``line:9`` is a wrong row that the second run does not meet again."""

LAST: dict[str, int] = dict(
    pair for answers in (BEFORE, SALVAGED, *(b for run in RUNS for b in run)) for pair in answers
)
"""The version of each key when everything has been told."""
VANISHING = {"line:9"}


def outcome(key: str, version: int) -> Outcome:
    """An answer whose text tells its version; some are longer than a page of memory, and none is plain ASCII."""
    is_wrong_row = key in VANISHING
    return Outcome(
        subject=Item(
            key=key,
            position=0,
            line=None,
            model="m",
            media=(),
            prompt="p",
            prompt_sha256="s",
            fingerprint=f"v1:{version}",
        ),
        status=Status.FAILED if is_wrong_row else Status.SUCCEEDED,
        answer=Answer(text="é\U0001f600" * (1500 if key in "bf" else 20), usage=Usage(total_tokens=5)),
        failure=Failure(stage="manifest", kind="bad_row", message="no key") if is_wrong_row else None,
        started_at=NOW,
        finished_at=NOW,
    )


def line(key: str, version: int) -> bytes:
    """The line that the outcome becomes."""
    return encode(line_of(outcome(key, version), "gemini"))


def begin(folder: Path) -> None:
    """Make the folder as the story finds it."""
    folder.mkdir(mode=0o700)
    whole = b"".join(line(*answer) for answer in BEFORE)
    (folder / "results.jsonl").write_bytes(whole + line("e", 1)[:100])
    (folder / "salvage-20261121T023000.000000Z.jsonl").write_bytes(b"".join(line(*answer) for answer in SALVAGED))


async def tell(folder: Path, say: Say) -> None:
    """The story from its beginning to its end."""
    for answer in (*BEFORE, *SALVAGED):
        say(f"ack {answer[0]} {answer[1]}")
    for batches in RUNS:
        await one_run(folder, batches, say)
        say("ended")


async def one_run(path: Path, batches: Sequence[Answers], say: Say) -> None:
    """Open the folder, and work in it."""
    async with opened(path) as folder:
        await work(folder, batches, say)


async def work(folder: RunFolder, batches: Sequence[Answers], say: Say) -> None:
    """Commit batch after batch, compact, sum up."""
    keys = sorted({key for batch in batches for key, _ in batch})
    await folder.ledger.admit([Candidate(key=key, position=n) for n, key in enumerate(keys)])
    for batch in batches:
        await _commit(folder, batch, say)
    await compact(folder, source_was_read=True)
    summary = Counting().summary(
        source="-", output="", backend="gemini", model="m", in_doubt=[], removed=0, started_at=NOW, finished_at=NOW
    )
    await anyio.to_thread.run_sync(write_summary, folder.path / SUMMARY, summary)


async def _commit(folder: RunFolder, batch: Answers, say: Say) -> None:
    versions = dict(batch)
    room = ResultsRoom(
        folder,
        backend="gemini",
        observer=_Silent(),
        on_committed=lambda done: say(f"ack {done.subject.key} {versions[done.subject.key]}"),
    )
    send, receive = Stream[Outcome](len(batch)).ends()
    for key, version in batch:
        await folder.ledger.intend(Intent(key=key, attempt=1, started_at=NOW))
        say(f"sent {key} {version}")
        send.send_nowait(outcome(key, version))
    send.close()
    await room.run(receive)


def opened(path: Path, open_ledger: LedgerFactory = OPEN_LEDGER) -> AbstractAsyncContextManager[RunFolder]:
    """The folder, opened by the product."""
    spec = RunSpec(output=path, source_name="-", source=SourceSpec(path=None))
    return open_run_folder(spec, open_ledger=open_ledger, clock=SystemClock())


def saying(fd: int) -> Say:
    """Words go to ``fd``, one a line, by a system call that nothing else here uses."""

    def say(word: str) -> None:
        os.writev(fd, [word.encode(), b"\n"])

    return say


class _Silent:
    def notify(self, event: Event) -> None:
        """Nobody looks."""
