"""The only place that names concrete classes: a RunSpec becomes an open engine, and an engine a summary."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from pipeline.activation.stage import ActivationRoom
from pipeline.clock import Clock, SystemClock
from pipeline.drain import Drain
from pipeline.engine.failure_budget import FailureBudget
from pipeline.engine.flow import Flow, Rooms, first_of_ours
from pipeline.engine.gauges import Gauges
from pipeline.engine.preflight import Preflight
from pipeline.engine.shutdown import Shutdown
from pipeline.engine.worker import stopping
from pipeline.errors import ExitCode, StopRun, UsageError
from pipeline.events import DrainBegan, Observer, Observers, Warned
from pipeline.gemini.api import FilesApi
from pipeline.gemini.client import Client, key_hash, open_client
from pipeline.gemini.health import Patience
from pipeline.generation.body_budget import BodyBudget
from pipeline.generation.stage import GenerationRoom
from pipeline.generation.tokens import estimate
from pipeline.ledger.api import Ledger
from pipeline.ledger.peek import doubts
from pipeline.ledger.sqlite import open_sqlite_ledger
from pipeline.manifest.stage import ManifestRoom
from pipeline.plain_text import printable
from pipeline.records import Item, Outcome, Status
from pipeline.report.jsonlog import JsonLog
from pipeline.report.live import PROGRESS
from pipeline.report.refusals import Refusals
from pipeline.report.summary import Counting, Summary, write_summary
from pipeline.report.watch import Watch
from pipeline.results.compaction import compact
from pipeline.results.run_folder import LEDGER, SUMMARY, RunFolder, open_run_folder
from pipeline.results.stage import ResultsRoom
from pipeline.retention.budget import MOST_IDLE, StorageBudget
from pipeline.retention.stage import Retention
from pipeline.spec import EndpointSpec, RunSpec
from pipeline.upload.stage import UploadRoom
from pipeline.whole import trouble

BODY_BUDGET_BYTES = 256 * 1024 * 1024
"""Bytes of all request bodies that are being built or sent."""

SURVEY_SECONDS = 15.0
SURVEY_DRAINING_SECONDS = 2.0
"""How long counting the rest of SOURCE may take; a run that has been told to end has little time."""

HAND_OUTAGE_SECONDS = 120.0
"""How long an outage is sat out while somebody waits at a prompt; a full quota of a minute is."""

LOG = "run.log"


async def run(
    spec: RunSpec,
    *,
    api_key: str,
    observers: Sequence[Observer] = (),
    clock: Clock | None = None,
    watch_signals: bool = False,
) -> Summary:
    """Do one run and sum it up; the summary's ``exit_code`` is the process's.

    Raises ``UsageError``, ``RunLocked`` or ``StopRun`` where the run could not begin: nothing was sent then.
    """
    one = _Run(spec, api_key, observers=observers, clock=clock or SystemClock())
    try:
        async with anyio.create_task_group() as watchers:
            if watch_signals:
                watchers.start_soon(one.shutdown.watch_signals)
            watchers.start_soon(one.shutdown.watch_deadline)
            watchers.start_soon(one.shutdown.watch_grace)
            summary = await one.go()
            watchers.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_of_ours(group) or group from None
    return summary


class _Run:
    """One run, from opening its folder to its summary; signals are watched for all of that time."""

    def __init__(self, spec: RunSpec, api_key: str, *, observers: Sequence[Observer], clock: Clock) -> None:
        self._spec = spec
        self._api_key = api_key
        self._clock = clock
        self._started_at = clock.now()
        self._counting = Counting(limited=spec.selection.limit is not None)
        self._refusals = Refusals(clock)
        self._observers = Observers(self._counting, self._refusals, *observers)
        self._drain = Drain(lambda reason: self._observers.notify(DrainBegan(reason=reason)))
        self._failures = FailureBudget(spec.stop.max_failed_share)
        self._work = anyio.CancelScope()
        self.shutdown = Shutdown(drain=self._drain, spec=spec.stop, clock=clock, stop_now=self._work.cancel)

    async def go(self) -> Summary:
        """Open the folder, run, close it."""
        spec = self._spec
        open_ledger = partial(
            open_sqlite_ledger,
            endpoint=spec.endpoint.base_url,
            key_hash=key_hash(self._api_key),
            warn=lambda message: self._observers.notify(Warned(message=message)),
        )
        async with open_run_folder(spec, open_ledger=open_ledger, clock=self._clock) as folder:
            log = JsonLog(
                folder.path / LOG, secrets=(self._api_key,), verbose=spec.verbose, on_failure=self._stop_for_human
            )
            self._observers.add(log)
            try:
                log.write("run_began", {"source": spec.source_name, "backend": spec.endpoint.backend})
                summary = await self._run_in(folder, self._watch(folder, log))
                log.write("run_ended", {"summary": summary})
                await self._publish(summary, folder.path / SUMMARY)
            finally:
                log.close()
        return summary

    def _watch(self, folder: RunFolder, log: JsonLog) -> Watch:
        async def keep(text: str) -> None:
            await folder.ledger.learn(PROGRESS, text, self._clock.now())

        return Watch(
            self._spec,
            counting=self._counting,
            refusals=self._refusals,
            clock=self._clock,
            started_at=self._started_at,
            keep=keep,
            log=log.write,
        )

    async def _run_in(self, folder: RunFolder, watch: Watch) -> Summary:
        """The flow, then the closing: compaction and summary."""
        spec, ledger = self._spec, folder.ledger
        doubted_before = await ledger.in_doubt()
        async with open_client(
            api_key=self._api_key,
            ledger=ledger,
            drain=self._drain,
            observer=self._observers,
            clock=self._clock,
            endpoint=spec.endpoint,
            upload=spec.upload,
            generation=spec.generation,
            quota=spec.quota,
        ) as client:
            rooms = await self._rooms(client, folder)
            flow = self._flow(rooms, ledger)
            async with watch.over(self._gauges(flow, rooms, client).read):
                await self._through(flow)
        manifest = rooms.manifest
        if manifest.read_to_end and not manifest.usable and not spec.source.is_folder:
            why = "its failed lines say why" if manifest.total else "it has no rows"
            self._drain.begin(ExitCode.USAGE, f"not one row of the manifest can be used: {why}")
        removed = 0
        with stopping(self._drain):
            if not manifest.read_to_end and folder.is_sound:
                await self._survey(manifest)
            if folder.is_sound:
                await compact(folder, source_was_read=manifest.read_to_end)
            if manifest.read_to_end:
                removed = await ledger.count_removed()
        summary = self._sum_up(
            folder, in_doubt=sorted({*doubted_before, *await self._open_intents(folder)}), removed=removed
        )
        watch.complete(summary)
        return summary

    async def _survey(self, manifest: ManifestRoom) -> None:
        """Tell what is left of a SOURCE that was not read to its end, as far as there is time for it."""
        limit_seconds = SURVEY_DRAINING_SECONDS if self._drain.begun else SURVEY_SECONDS
        with suppress(UsageError), anyio.move_on_after(limit_seconds):  # it may be what can't be read
            if survey := await manifest.survey():
                self._counting.correct(total=survey.total, succeeded=survey.succeeded, left=survey.left)

    async def _open_intents(self, folder: RunFolder) -> list[str]:
        """Also where the ledger has failed, for then they matter."""
        try:
            return await folder.ledger.open_intents()
        except StopRun:
            return (await anyio.to_thread.run_sync(partial(doubts, folder.path / LEDGER, run_is_on=False))).keys

    async def _rooms(self, client: Client, folder: RunFolder) -> Rooms:
        spec, ledger, clock, observer = self._spec, folder.ledger, self._clock, self._observers
        retention = Retention(
            # what is freed at once need not be put out of mind
            budget=StorageBudget(spec.limits.project_storage_bytes, most_idle=MOST_IDLE if spec.upload.keep else None),
            files=client.files,
            ledger=ledger,
            clock=clock,
            observer=observer,
            keep=spec.upload.keep,
            wait_seconds=spec.upload.storage_wait_seconds,
        )
        await retention.open()

        def on_committed(outcome: Outcome) -> None:
            retention.committed(outcome)
            if isinstance(outcome.subject, Item):
                self._spend(failed=outcome.status is Status.FAILED)

        return Rooms(
            manifest=ManifestRoom(
                source=spec.source,
                defaults=spec.defaults,
                selection=spec.selection,
                limits=spec.limits,
                ledger=ledger,
                identities=folder.identities,
                run_folder=folder.path,
                clock=clock,
                observer=observer,
            ),
            upload=UploadRoom(
                files=client.files,
                storage=retention,
                check_model=Preflight(client.models).check,
                spec=spec.upload,
                limits=spec.limits,
                clock=clock,
                observer=observer,
            ),
            activation=ActivationRoom(
                files=client.files, storage=retention, deadline_seconds=spec.activation_deadline_seconds
            ),
            generation=GenerationRoom(
                models=client.models,
                bodies=BodyBudget(BODY_BUDGET_BYTES),
                estimate_tokens=estimate,
                limits=spec.limits,
                drain=self._drain,
                clock=clock,
                observer=observer,
            ),
            results=ResultsRoom(
                folder,
                backend=spec.endpoint.backend,
                observer=observer,
                on_committed=on_committed,
                on_stop=lambda stop: self._drain.begin(stop.exit_code, str(stop)),
            ),
            retention=retention,
        )

    def _flow(self, rooms: Rooms, ledger: Ledger) -> Flow:
        return Flow(
            rooms=rooms,
            ledger=ledger,
            drain=self._drain,
            clock=self._clock,
            work=self._work,
            observer=self._observers,
            uploads=self._spec.upload.uploads,
            concurrency=self._spec.generation.concurrency,
        )

    def _gauges(self, flow: Flow, rooms: Rooms, client: Client) -> Gauges:
        return Gauges(
            flow,
            rooms,
            uploads=self._spec.upload.uploads,
            concurrency=self._spec.generation.concurrency,
            uploading=client.uploading,
            generating=client.generating,
        )

    async def _through(self, flow: Flow) -> None:
        try:
            await flow.run()
        except BaseExceptionGroup as group:
            ours = first_of_ours(group)
            if ours is None:
                raise
            self._drain.begin(ours.exit_code, str(ours))

    def _spend(self, *, failed: bool) -> None:
        if self._failures.spend(failed=failed) and not self._drain.begun:
            self._drain.begin(
                ExitCode.STOPPED_EARLY,
                f"{self._failures}, more than max_failed_share allows: look at their errors, then run again",
            )

    def _stop_for_human(self, sentence: str) -> None:
        self._drain.begin(ExitCode.NEEDS_HUMAN, sentence)

    def _sum_up(self, folder: RunFolder, *, in_doubt: list[str], removed: int) -> Summary:
        spec = self._spec
        summary = self._counting.summary(
            source=spec.source_name,
            output=printable(str(folder.path)),
            backend=spec.endpoint.backend,
            model=spec.defaults.model,
            in_doubt=in_doubt,
            removed=removed,
            started_at=self._started_at,
            finished_at=self._clock.now(),
        )
        self._judge(summary)
        return summary

    async def _publish(self, summary: Summary, path: Path) -> None:
        """Write summary.json; one that can't be written changes the exit code, and still reaches who waits for it."""
        self._judge(summary)
        try:
            await anyio.to_thread.run_sync(write_summary, path, summary)
        except OSError as error:
            what = f"{trouble(error)} for {path} ({error.strerror})"
            self._stop_for_human(f"{what}: every answer is kept. See to the disk, then run again")
            self._judge(summary)

    def _judge(self, summary: Summary) -> None:
        if self._drain.exit_code is not None:
            summary.exit_code = self._drain.exit_code
            summary.reason = self._drain.reason or ""


@asynccontextmanager
async def open_files(endpoint: EndpointSpec, api_key: str, *, observer: Observer) -> AsyncIterator[FilesApi]:
    """The File API by hand, for the ``files`` commands: no run folder, no ledger, and a person who waits."""
    async with open_client(
        api_key=api_key,
        ledger=None,
        drain=Drain(),
        observer=Observers(observer),
        clock=SystemClock(),
        endpoint=endpoint,
        patience=Patience(outage_seconds=HAND_OUTAGE_SECONDS),
    ) as client:
        yield client.files
