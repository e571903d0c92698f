"""What one run keeps for the next: ceilings for a day, and how many requests the day has seen."""

from datetime import datetime, timedelta

import msgspec

from pipeline.clock import Clock
from pipeline.gemini.governor.pace import pacific_day
from pipeline.ledger.api import Ledger

CEILINGS_LIVE = timedelta(hours=24)
"""Quotas change with tiers and with what others do; a nightly run still finds last night's."""


class Ceilings(msgspec.Struct, frozen=True):
    """Learnt ceilings of a model, a minute; None where unknown."""

    requests: float | None = None
    tokens: float | None = None


class QuotaMemory:
    """Keeps in the ledger what was learnt of one project's quotas. ``project`` names key and endpoint, not in clear."""

    def __init__(self, ledger: Ledger, project: str, clock: Clock) -> None:
        self._ledger = ledger
        self._project = project
        self._clock = clock

    async def ceilings(self, model: str) -> Ceilings:
        """What is known of ``model``; nothing where it can't be read."""
        text = await self._ledger.learnt(self._name("quota", model), self._clock.now() - CEILINGS_LIVE)
        try:
            return msgspec.json.decode(text, type=Ceilings) if text else Ceilings()
        except msgspec.DecodeError:
            return Ceilings()

    async def keep_ceilings(self, model: str, ceilings: Ceilings) -> None:
        """Remember ``ceilings`` from now on."""
        value = msgspec.json.encode(ceilings).decode()
        await self._ledger.learn(self._name("quota", model), value, self._clock.now())

    async def requests_today(self, model: str) -> int:
        """Requests to ``model`` that were kept for this quota day."""
        now = self._clock.now()
        text = await self._ledger.learnt(self._day_name(model, now), now - CEILINGS_LIVE - timedelta(hours=1))
        return int(text) if text and text.isdecimal() else 0

    async def keep_requests_today(self, model: str, requests: int) -> None:
        """Remember how many requests ``model`` has had on this quota day."""
        now = self._clock.now()
        await self._ledger.learn(self._day_name(model, now), str(requests), now)

    def _day_name(self, model: str, now: datetime) -> str:
        return self._name(f"requests of {pacific_day(now)}", model)

    def _name(self, what: str, model: str) -> str:
        return f"{what}: {self._project} {model}"
