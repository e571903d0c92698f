"""Nights of the manifest room over one ledger in memory."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anyio

from pipeline.clock import SystemClock
from pipeline.errors import StopForHuman, UsageError
from pipeline.events import Event, ItemAdmitted
from pipeline.ledger.api import Mark, Offset
from pipeline.ledger.memory import MemoryLedger
from pipeline.limits import Limits
from pipeline.manifest.fingerprint import media_sha256
from pipeline.manifest.stage import ManifestRoom
from pipeline.records import Item, Outcome, Status
from pipeline.spec import ItemDefaults, Selection, SourceSpec

SAMPLES = Path("sample_manifests")


class Night:
    """One run of the room over one ledger, and what came of it."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.ledger = ledger
        self.events: list[Event] = []
        self.items: list[Item] = []
        self.outcomes: list[Outcome] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)

    def room(self, path: Path | None, **options: Any) -> ManifestRoom:
        source = {name: options.pop(name) for name in ("group", "media_roots") if name in options}
        defaults = {name: options.pop(name) for name in ("prompt", "template", "generation") if name in options}
        limits = options.pop("limits", Limits())
        return ManifestRoom(
            source=SourceSpec(path=path, **source),
            defaults=ItemDefaults(**defaults),
            selection=Selection(**options),
            limits=limits,
            ledger=self.ledger,
            identities=self.ledger.identities,
            clock=SystemClock(),
            observer=self,
            run_folder=Path("no run folder"),
        )

    async def run(self, path: Path | None, **options: Any) -> ManifestRoom:
        self.ledger.next_run()
        room = self.room(path, **options)
        items, arriving = anyio.create_memory_object_stream[Item](1)
        rejected, failing = anyio.create_memory_object_stream[Outcome](1)

        async def take_items() -> None:
            async with arriving:
                async for item in arriving:
                    self.items.append(item)

        async def take_outcomes() -> None:
            async with failing:
                async for outcome in failing:
                    self.outcomes.append(outcome)

        async with items, rejected, anyio.create_task_group() as group:
            group.start_soon(take_items)
            group.start_soon(take_outcomes)
            try:
                await room.run(items, rejected)
            except (StopForHuman, UsageError) as error:
                self.stop = error
            items.close()
            rejected.close()
        return room

    @property
    def decisions(self) -> Counter[str]:
        return Counter(str(event.decision) for event in self.events if isinstance(event, ItemAdmitted))

    @property
    def failures(self) -> dict[str, str]:
        return {o.subject.key: o.failure.kind for o in self.outcomes if o.failure}

    async def commit(self, status: Status = Status.SUCCEEDED) -> None:
        """Mark all that was sent or rejected, as the results room would."""
        sent = [
            Mark(
                key=item.key,
                status=status,
                fingerprint=item.fingerprint,
                kind=None,
                retryable=False,
                emulated=False,
                offset=0,
                size_bytes=1,
                media_sha256=media_sha256(item.media),
            )
            for item in self.items
        ]
        failed = [
            Mark(
                key=o.subject.key,
                status=Status.FAILED,
                fingerprint=o.subject.fingerprint,
                kind=o.failure and o.failure.kind,
                retryable=False,
                emulated=False,
                offset=0,
                size_bytes=1,
            )
            for o in self.outcomes
        ]
        await self.ledger.mark([*sent, *failed], Offset(inode=1, size_bytes=1, mtime_ns=1))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
