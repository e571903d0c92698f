"""Asks the model: builds the request, sends it, judges the answer, asks again where that may help."""

import hashlib
import os
from collections.abc import Callable

import anyio
import anyio.to_thread
import msgspec

from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.errors import Again, Failure, ItemError, StopForHuman, TryAgain
from pipeline.events import Observer, Retrying
from pipeline.gemini.api import GenerateRequest, ModelsApi, Route
from pipeline.generation.body_budget import BodyBudget
from pipeline.generation.judging import Judging
from pipeline.generation.request import body
from pipeline.generation.response import ASK_AGAIN, Judgement
from pipeline.limits import Limits
from pipeline.media.identify import identity_of, unreadable
from pipeline.records import Answer, FileIdentity, Item, Media, Outcome, Ready, Status, Usage

BASE64_GROWTH = 4 / 3
TINY_BYTES = 64 * 1024
"""Media up to this size are read at once: they were hashed a moment ago, so they come from memory in a tenth of the
time that a thread would take to be woken for them."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class GenerationRoom:
    """``handle`` may run for many items at once; how many calls are out is the governor's business."""

    def __init__(
        self,
        *,
        models: ModelsApi,
        bodies: BodyBudget,
        estimate_tokens: Callable[[Item], int],
        limits: Limits,
        drain: Drain,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._models = models
        self._bodies = bodies
        self._estimate_tokens = estimate_tokens
        self._limits = limits
        self._drain = drain
        self._clock = clock
        self._observer = observer
        self._judging = Judging()

    @property
    def bodies_waiting(self) -> int:
        """Bodies that wait for memory."""
        return self._bodies.waiting

    async def handle(self, ready: Ready) -> Outcome:
        """Ask the model about ``ready``. Raises ``ItemError``, ``TryAgain``, ``StopRun``, ``Draining``."""
        self._drain.check()
        if not ready.usable_at(self._clock.now()):
            raise expired(ready)
        inline = [p.media for p in ready.parts if p.file is None]
        if not inline:
            return await self._ask(ready, self._request(ready, inline))
        size_bytes = sum(m.size_bytes for m in inline)
        async with self._bodies.hold(int(size_bytes * BASE64_GROWTH)):
            if size_bytes <= TINY_BYTES:
                request = self._request(ready, inline)
            else:
                request = await anyio.to_thread.run_sync(self._request, ready, inline)
            return await self._ask(ready, request)

    def _request(self, ready: Ready, inline: list[Media]) -> GenerateRequest:
        contents = {media.content: read_hashed(media) for media in inline}
        item = ready.item
        return GenerateRequest(
            key=item.key,
            model=item.model,
            body=body(ready, contents, self._limits),
            tokens=self._estimate_tokens(item),
        )

    async def _ask(self, ready: Ready, request: GenerateRequest) -> Outcome:
        asked_again: dict[str, int] = {}
        attempts = ready.item.attempts_before
        ambiguous = ready.item.ambiguous_before
        usage = Usage()
        while True:
            try:
                response = await self._models.generate(request)
            except (ItemError, TryAgain) as error:
                error.attempts += attempts - ready.item.attempts_before
                error.ambiguous = error.ambiguous or ambiguous
                if asked_again and isinstance(error, ItemError):
                    return self._failed(ready, error, usage)
                raise
            attempts += response.attempts
            ambiguous = ambiguous or response.ambiguous
            judgement = await self._judging.judge(response.body, ready.item)
            usage += judgement.answer.usage
            if judgement.stop:
                raise StopForHuman(judgement.stop)
            asked_again[judgement.kind] = asked_again.get(judgement.kind, 0) + 1
            final = asked_again[judgement.kind] > ASK_AGAIN.get(judgement.kind, 0)
            if final or self._drain.begun:
                judgement = judgement if final else _left_to_the_next_run(judgement)
                return self._outcome(ready, judgement, attempts=attempts, ambiguous=ambiguous, usage=usage)
            self._observer.notify(
                Retrying(
                    route=Route.GENERATE,
                    subject=request.key,
                    cause=judgement.kind,
                    wait_seconds=0.0,
                    message=judgement.failure.message if judgement.failure else "",
                )
            )

    def _outcome(self, ready: Ready, judgement: Judgement, *, attempts: int, ambiguous: bool, usage: Usage) -> Outcome:
        return Outcome(
            subject=ready.item,
            status=judgement.status,
            attempts=attempts,
            ambiguous=ambiguous,
            answer=judgement.answer if attempts == 1 else msgspec.structs.replace(judgement.answer, usage=usage),
            failure=judgement.failure,
            parts=ready.parts,
            started_at=ready.started_at,
            finished_at=self._clock.now(),
        )

    def _failed(self, ready: Ready, error: ItemError, usage: Usage) -> Outcome:
        """The item ends with ``error`` after answers that were of no use, and were paid for."""
        return Outcome(
            subject=ready.item,
            status=Status.FAILED,
            attempts=ready.item.attempts_before + error.attempts,
            ambiguous=error.ambiguous,
            answer=Answer(usage=usage),
            failure=error.failure,
            parts=ready.parts,
            started_at=ready.started_at,
            finished_at=self._clock.now(),
        )


def _left_to_the_next_run(judgement: Judgement) -> Judgement:
    """Of an answer after which this run would have asked again, had no drain begun."""
    assert judgement.failure is not None  # noqa: S101 - a success is final
    return msgspec.structs.replace(judgement, failure=msgspec.structs.replace(judgement.failure, retryable=True))


def expired(ready: Ready) -> TryAgain:
    """The item's files would expire before the answer: upload them afresh."""
    names = tuple(p.file.name for p in ready.parts if p.file)
    failure = Failure(
        stage="generation",
        kind="file_gone",
        message="its uploaded file expired before it could be used",
        retryable=True,
    )
    return TryAgain(Again.FILE_GONE, failure, file_names=names)


def read_hashed(media: Media) -> bytes:
    """The bytes of ``media`` that were hashed; blocking.

    Raises ``ItemError`` (missing_file, not_a_file, source_changed) where they are others now.
    """
    try:
        data, identity = _read(media)
    except OSError as error:
        failure = unreadable(media.path, error).failure
        raise ItemError(msgspec.structs.replace(failure, stage="generation")) from error
    is_vouched_for = media.settled and identity == media.identity and len(data) == media.size_bytes
    if not is_vouched_for and hashlib.sha256(data).hexdigest() != media.sha256:
        problem = f"{media.path} changed after it was read for the first time; run again when it is at rest"
        raise ItemError(Failure(stage="generation", kind="source_changed", message=problem))
    return data


def _read(media: Media) -> tuple[bytes, FileIdentity]:
    """As many bytes as ``media`` had, or fewer; and what the file was after they were read."""
    descriptor = os.open(media.location, OPEN_FLAGS)
    try:
        data = os.read(descriptor, media.size_bytes)
        while len(data) < media.size_bytes and (more := os.read(descriptor, media.size_bytes - len(data))):
            data += more
        return data, identity_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)
