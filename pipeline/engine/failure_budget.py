"""Decides when so many items fail that the run had better stop and be looked at."""

from typing import Final

PROBATION_ITEMS: Final = 200
"""Items sent before the share of failures means anything (contract: ``max_failed_share``)."""


class FailureBudget:
    """Counts items sent and failed; blocked items and manifest errors are not failures of the run."""

    def __init__(self, max_failed_share: float) -> None:
        self._max_failed_share = max_failed_share
        self._sent = 0
        self._failed = 0

    def spend(self, *, failed: bool) -> bool:
        """One more item was sent, and ``failed`` or not. Returns whether the budget is used up."""
        self._sent += 1
        self._failed += failed
        if self._sent < PROBATION_ITEMS or self._max_failed_share >= 1:
            return False
        return self._failed > self._max_failed_share * self._sent

    def __str__(self) -> str:
        return f"{self._failed} of {self._sent} items failed"
