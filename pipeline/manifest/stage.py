"""The manifest room at work: pulls batches in a thread, asks the ledger about them, sends on what is to be sent."""

import os
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from anyio import from_thread, to_thread

from pipeline.clock import Clock
from pipeline.errors import StopForHuman
from pipeline.events import ItemAdmitted, Observer, SourceRead, Warned
from pipeline.ledger.api import SOURCE_TOTAL, Admission, Identities, Ledger
from pipeline.ledger.api import Candidate as Seen
from pipeline.limits import Limits
from pipeline.manifest.assemble import Assembler
from pipeline.manifest.decide import Decision, decide, duplicate, is_changed
from pipeline.manifest.folder import FolderSource
from pipeline.manifest.lines import STDIN
from pipeline.manifest.lines import reader as reading
from pipeline.manifest.prompts import Prompts
from pipeline.manifest.reader import Reader
from pipeline.manifest.source import ManifestSource, Source, most_files
from pipeline.manifest.survey import Survey, next_batch
from pipeline.media.hashing_process import HashingProcess
from pipeline.media.identify import Identifier
from pipeline.records import Item, Outcome, Rejected, Status
from pipeline.spec import ItemDefaults, Selection, SourceSpec
from pipeline.streams import Sink

Admitted = list[tuple[Item | Rejected, Admission]]


class ManifestRoom:
    """SOURCE as a stream of items, each decided about. ``run`` may be called once.

    Raises ``UsageError`` when built, where SOURCE or the run's template can't be used.
    """

    def __init__(
        self,
        *,
        source: SourceSpec,
        defaults: ItemDefaults,
        selection: Selection,
        limits: Limits,
        ledger: Ledger,
        identities: Identities,
        clock: Clock,
        observer: Observer,
        run_folder: Path,
        prompts: Prompts | None = None,
    ) -> None:
        self.total = 0
        """Items and rejected rows read so far."""
        self.usable = 0
        """Those of them that are items."""
        self.sent = 0
        self.read_to_end = False
        self._not_found = 0
        self._spec = source
        self._selection = selection
        self._limits = limits
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._run_folder = run_folder
        self._warnings: list[str] = []
        self._warned: set[str] = set()
        self._spool: int | None = None
        check = from_thread.check_cancelled
        self._identifier = Identifier(
            identities,
            clock,
            max_bytes=limits.file_bytes,
            check_cancelled=check,
            small_files=HashingProcess(max_bytes=limits.file_bytes, check_cancelled=check),
        )
        self._assembler = Assembler(
            defaults, limits, self._identifier, prompts or Prompts(), warn=self._warnings.append
        )
        self._source = self._open()

    @property
    def skipped(self) -> dict[str, int]:
        """Files passed over so far, by suffix."""
        return dict(self._source.skipped)

    async def run(self, items: Sink[Item], rejected: Sink[Outcome]) -> None:
        """Read SOURCE to its end, or until ``--limit`` is reached.

        Raises ``UsageError`` where the manifest turns out to be unreadable, and ``StopForHuman`` where items
        changed and the selection says stop.
        """
        try:
            if self._selection.on_change == "stop":
                await self._refuse_changes()
            async with aclosing(self._admitted(self._source)) as batches:
                async for batch in batches:
                    await self._pass_on(batch, items, rejected)
                    if self._limit_is_reached():
                        return
        finally:
            if self._spool is not None:
                os.close(self._spool)
        self.read_to_end = True
        await self._ledger.learn(SOURCE_TOTAL, str(self.total), self._clock.now())
        if self._not_found:
            warning = f"{self._not_found:,} done items have media that can't be found now; their answers are kept"
            self._observer.notify(Warned(message=warning))
        self._observer.notify(SourceRead(total=self.total, skipped=self.skipped))

    async def survey(self) -> Survey | None:
        """All of SOURCE by the lines its keys have now, for a run that did not read it to its end; None for stdin."""
        if self._spec.path is None:
            return None
        survey = Survey()
        entries = self._open().entries()
        try:
            while batch := await to_thread.run_sync(next_batch, entries):
                admitted = await self._ledger.admit([Seen(key=e.key, position=e.position) for e in batch])
                survey.take(admitted, emulated=self._selection.emulated)
        finally:
            entries.close()
        await self._ledger.learn(SOURCE_TOTAL, str(survey.total), self._clock.now())
        return survey

    def _open(self) -> Source:
        path, check = self._spec.path, from_thread.check_cancelled
        if path is not None and path.is_dir():
            return FolderSource(
                path,
                self._spec,
                run_folder=self._run_folder,
                clock=self._clock,
                most_files=most_files(self._limits),
                check_cancelled=check,
            )
        return ManifestSource(
            self._spec, self._limits, warn=self._warnings.append, check_cancelled=check, spool=self._spool
        )

    async def _admitted(self, source: Source) -> AsyncGenerator[Admitted]:
        """Batches of candidates with what the ledger says of them."""
        reader = Reader(source, self._assembler, self._identifier)
        try:
            while batch := await to_thread.run_sync(reader.next_batch):
                if new := self._identifier.take_new():
                    await self._ledger.remember_identities(new)
                self._warn()
                yield await self._admit(batch)
            self._warn()
        finally:
            reader.close()

    async def _admit(self, batch: Sequence[Item | Rejected]) -> Admitted:
        """Admit the batch; a repeated key becomes a failed line under a key of its own."""
        admitted = list(zip(batch, await self._ask(batch), strict=True))
        while repeated := [at for at, (candidate, reply) in enumerate(admitted) if _is_repeated(candidate, reply)]:
            renamed = [duplicate(admitted[at][0]) for at in repeated]
            for at, candidate, reply in zip(repeated, renamed, await self._ask(renamed), strict=True):
                admitted[at] = candidate, reply
        return admitted

    async def _ask(self, batch: Sequence[Item | Rejected]) -> list[Admission]:
        return await self._ledger.admit([Seen(key=c.key, position=c.position) for c in batch])

    async def _pass_on(self, batch: Admitted, items: Sink[Item], rejected: Sink[Outcome]) -> None:
        for candidate, admission in batch:
            if self._limit_is_reached():
                self._observer.notify(ItemAdmitted(key=candidate.key, decision=Decision.BEYOND_LIMIT))
                continue
            decision, subject = decide(candidate, admission, self._selection)
            self.total += 1
            self.usable += isinstance(candidate, Item)
            self._not_found += decision is Decision.NOT_FOUND
            self._observer.notify(ItemAdmitted(key=subject.key, decision=decision))
            if decision is Decision.SEND and isinstance(subject, Item):
                await items.send(subject)
                self.sent += 1
            elif decision is Decision.REJECTED and isinstance(subject, Rejected):
                await rejected.send(self._failed(subject))

    async def _refuse_changes(self) -> None:
        """Read SOURCE once before anything is sent, and stop if done items changed."""
        if self._spec.path is None:
            self._spool = await to_thread.run_sync(_spool_stdin)
            self._source = self._open()
        changed = 0
        async with aclosing(self._admitted(self._open())) as batches:
            async for batch in batches:
                changed += sum(is_changed(candidate, reply, self._selection) for candidate, reply in batch)
        if self._spool is not None:
            os.lseek(self._spool, 0, os.SEEK_SET)
        if changed:
            raise StopForHuman(
                f"{changed:,} done items have another prompt, model or settings now, and nothing was sent:"
                " say --on-change run to send them again, or --on-change keep to keep their lines"
            )

    def _limit_is_reached(self) -> bool:
        return self._selection.limit is not None and self.sent >= self._selection.limit

    def _failed(self, subject: Rejected) -> Outcome:
        now = self._clock.now()
        return Outcome(subject=subject, status=Status.FAILED, failure=subject.failure, started_at=now, finished_at=now)

    def _warn(self) -> None:
        for message in dict.fromkeys(self._warnings):
            if message not in self._warned:  # SOURCE may be read twice
                self._warned.add(message)
                self._observer.notify(Warned(message=message))
        self._warnings.clear()


def _is_repeated(candidate: Item | Rejected, admission: Admission) -> bool:
    """Whether an earlier row has its key. Files of a folder have no lines, and their paths differ by nature."""
    return admission.duplicate and candidate.line is not None


def _spool_stdin() -> int:
    """All of stdin in a file without a name, to be read twice."""
    read = reading(STDIN, from_thread.check_cancelled)
    with tempfile.TemporaryFile() as file:
        while (chunk := read()) != b"":
            if chunk:
                file.write(chunk)
        file.flush()
        descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
