"""Run folders in which made-up outcomes are committed by the product's own results room."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.clock import SystemClock
from pipeline.errors import Failure
from pipeline.events import Event, ItemCommitted
from pipeline.ledger.api import Candidate
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.records import Answer, Item, Outcome, Status, Usage
from pipeline.results.compaction import compact
from pipeline.results.run_folder import RunFolder, open_run_folder
from pipeline.results.stage import ResultsRoom
from pipeline.spec import RunSpec, SourceSpec
from pipeline.streams import Stream

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
OPEN_LEDGER = partial(open_sqlite_ledger, endpoint="https://e", key_hash="k", warn=print)


def item(key: str) -> Item:
    return Item(
        key=key, position=0, line=None, model="m", media=(), prompt="p", prompt_sha256="s", fingerprint="v1:" + key
    )


def outcome(key: str, text: str = "an answer", failure: Failure | None = None) -> Outcome:
    return Outcome(
        subject=item(key),
        status=Status.FAILED if failure else Status.SUCCEEDED,
        answer=Answer(text=text, usage=Usage(total_tokens=5)),
        failure=failure,
        started_at=NOW,
        finished_at=NOW,
    )


def wrong_row(key: str) -> Outcome:
    return outcome(key, failure=Failure(stage="manifest", kind="bad_row", message="no key"))


@asynccontextmanager
async def opened(path: Path, **fields: Any) -> AsyncIterator[RunFolder]:
    given = {"source_name": "/photos", "source": SourceSpec(path=None), **fields}
    async with open_run_folder(RunSpec(output=path, **given), open_ledger=OPEN_LEDGER, clock=SystemClock()) as folder:
        yield folder


class Watcher:
    """Keeps what was committed."""

    def __init__(self) -> None:
        self.events: list[ItemCommitted] = []
        self.outcomes: list[Outcome] = []

    def notify(self, event: Event) -> None:
        assert isinstance(event, ItemCommitted)
        self.events.append(event)


async def commit(folder: RunFolder, *outcomes: Outcome, backend: str = "gemini") -> Watcher:
    watcher = Watcher()
    room = ResultsRoom(folder, backend=backend, observer=watcher, on_committed=watcher.outcomes.append)
    send, receive = Stream[Outcome](max(1, len(outcomes))).ends()
    for one in outcomes:
        send.send_nowait(one)
    send.close()
    await room.run(receive)
    return watcher


async def run(path: Path, *outcomes: Outcome, **fields: Any) -> None:
    """One whole run that commits these."""
    async with opened(path, **fields) as folder:
        await commit(folder, *outcomes)
        await compact(folder, source_was_read=True)


def keys(path: Path) -> list[str]:
    """Keys of the lines, all of which must be whole."""
    content = (path / "results.jsonl").read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line)["key"] for line in content.split(b"\n")[:-1]]


def texts(path: Path) -> dict[str, str]:
    content = (path / "results.jsonl").read_bytes()
    return {line["key"]: line["text"] for line in map(json.loads, content.split(b"\n")[:-1])}


async def known(folder: RunFolder, *wanted: str) -> list[bool]:
    answers = await folder.ledger.admit([Candidate(key=key, position=n) for n, key in enumerate(wanted)])
    return [answer.mark is not None for answer in answers]
