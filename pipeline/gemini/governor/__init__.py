"""Who may call when: permits in front of every call, and the gate that a refusal closes for all of them."""

from typing import Protocol

from pipeline.gemini.api import Call
from pipeline.gemini.signals import Verdict


class Governor(Protocol):
    """Hands out permits and learns from how calls end. Every algorithm of pacing is one of these."""

    def acquire_nowait(self, call: Call) -> bool:
        """Give a permit at once, if that takes no waiting; tells whether it did. Raises ``Draining``."""
        ...

    async def acquire(self, call: Call) -> None:
        """Wait for a permit, which is held while the call is out.

        Raises: ``Draining`` while it waits, ``StopEarly`` where the day's requests are used up.
        """
        ...

    def release(self, call: Call) -> None:
        """``call`` is out no more: give its permit back."""
        ...

    def observe(self, call: Call, verdict: Verdict, *, sent_at: float, now: float) -> None:
        """A call ended; told while its permit is still held. Times are monotonic."""
        ...

    def retry_wait(self, now: float) -> float:
        """A call that the service failed is to be sent again: seconds until the retry budget has room for it."""
        ...
