"""The client, put together: the only place in this folder that knows which wrapper goes round which."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import msgspec

from pipeline.clock import Clock
from pipeline.drain import Drain
from pipeline.errors import StopRun
from pipeline.events import Observer
from pipeline.gemini.api import FilesApi, ModelsApi
from pipeline.gemini.files import FilesClient
from pipeline.gemini.governor import Governor
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.governor.memory import QuotaMemory
from pipeline.gemini.health import Patience
from pipeline.gemini.intents import JournalledTransport
from pipeline.gemini.models import KeyProbe, ModelsClient
from pipeline.gemini.observed import ObservedTransport
from pipeline.gemini.retrying import RetryingTransport
from pipeline.gemini.transport import open_transport
from pipeline.ledger.api import Ledger
from pipeline.moment import Hold, Pressure
from pipeline.spec import EndpointSpec, GenerationSpec, QuotaSpec, UploadSpec

_SPARE_CONNECTIONS = 32
"""For polls, deletions and checks beside uploads and generation."""

_KEEP_SECONDS = 5.0
"""How long the end may take to keep what was learnt."""

_CALL_ATTEMPTS = 6
"""Tries of a deletion or of a page of the list, and outside a run of a poll."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """An open client."""

    files: FilesApi
    models: ModelsApi
    generating: Callable[[], Pressure]
    """How generate calls stand just now."""
    uploading: Callable[[], Pressure]


@asynccontextmanager
async def open_client(
    *,
    api_key: str | None,
    ledger: Ledger | None,
    drain: Drain,
    observer: Observer,
    clock: Clock,
    endpoint: EndpointSpec,
    upload: UploadSpec | None = None,
    generation: GenerationSpec | None = None,
    quota: QuotaSpec | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Client]:
    """A client for one run. ``ledger`` is None where nothing is generated (the ``files`` commands).

    Raises ``UsageError`` for a base URL that the key must not be sent to.
    """
    upload, generation = upload or UploadSpec(), generation or GenerationSpec()
    patience = patience or Patience()
    connections = generation.concurrency + upload.uploads + _SPARE_CONNECTIONS
    async with open_transport(
        base_url=endpoint.base_url, key=api_key, connections=connections, trust_env=endpoint.trust_env
    ) as http:
        plain = ObservedTransport(http, observer)
        probe = KeyProbe(plain, endpoint)
        project = f"{key_hash(api_key)} {endpoint.base_url}"
        memory = QuotaMemory(ledger, project, clock) if ledger else None

        def governor(concurrency: int, quota: QuotaSpec | None = None) -> AdaptiveGovernor:
            return AdaptiveGovernor(
                concurrency=concurrency, quota=quota, drain=drain, observer=observer, clock=clock, memory=memory
            )

        def family(
            governor: Governor, *, attempts: int | None, parallel: int, journal: Ledger | None = None
        ) -> RetryingTransport:
            return RetryingTransport(
                JournalledTransport(plain, journal, clock) if journal else plain,
                governor=governor,
                key_check=probe,
                attempts=attempts,
                patience=patience.scaled(parallel),
                drain=drain,
                observer=observer,
            )

        uploading = governor(upload.uploads)
        uploads = family(uploading, attempts=upload.attempts, parallel=upload.uploads)
        # within a run the room that waits for the file has a deadline
        polls = family(
            governor(_SPARE_CONNECTIONS), attempts=None if ledger else _CALL_ATTEMPTS, parallel=upload.uploads
        )
        calls = family(governor(_SPARE_CONNECTIONS), attempts=_CALL_ATTEMPTS, parallel=upload.uploads)
        generating = governor(generation.concurrency, quota or QuotaSpec())
        generate = family(
            generating,
            attempts=generation.attempts,
            parallel=generation.concurrency,
            journal=ledger,
        )
        files = FilesClient(
            uploads=uploads,
            polls=polls,
            calls=calls,
            endpoint=endpoint,
            spec=upload,
            patience=patience,
            drain=drain,
            observer=observer,
        )
        try:
            yield Client(
                files=files,
                models=ModelsClient(calls=generate, plain=plain, endpoint=endpoint, spec=generation),
                generating=lambda: _pressure(generating, generate),
                uploading=lambda: _pressure(uploading, uploads),
            )
        finally:
            with suppress(StopRun), anyio.move_on_after(_KEEP_SECONDS, shield=True):  # a failed ledger has said so
                await generating.keep(at_end=True)


def _pressure(governor: AdaptiveGovernor, transport: RetryingTransport) -> Pressure:
    pressure = governor.pressure()
    held_by = Hold.OUTAGE if transport.in_outage else pressure.held_by
    return msgspec.structs.replace(pressure, held_by=held_by, backing_off=transport.backing_off)


def key_hash(api_key: str | None) -> str:
    """What the ledger scopes uploads by: the beginning of the key's SHA-256, which tells nothing of the key."""
    return hashlib.sha256((api_key or "").encode()).hexdigest()[:16]
