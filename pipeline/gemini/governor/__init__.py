"""Who may call when: permits in front of every call, and the gate that a refusal closes for all of them."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pipeline.gemini.api import Call
from pipeline.gemini.signals import Verdict


class Governor(Protocol):
    """Hands out permits and learns from how calls end. Every algorithm of pacing is one of these."""

    def permit(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Wait for permission; held while the call is out.

        Raises: ``Draining`` while it waits, ``StopEarly`` where the day's requests are used up.
        """
        ...

    def observe(self, call: Call, verdict: Verdict, *, sent_at: float, now: float) -> None:
        """A call ended; told while its permit is still held. Times are monotonic."""
        ...

    def retry_wait(self, now: float) -> float:
        """A call that the service failed is to be sent again: seconds until the retry budget has room for it."""
        ...
