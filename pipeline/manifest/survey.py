"""Counts what a run that ended before the end of SOURCE has not come to, so that what is left can be told."""

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from pipeline.ledger.api import Admission
from pipeline.manifest.entry import Entry
from pipeline.manifest.source import Entries
from pipeline.records import Rejected, Status

BATCH_ROWS: Final = 1024
BATCH_SECONDS: Final = 0.2


class Survey(msgspec.Struct, kw_only=True):
    """All of SOURCE by the lines that its keys have.

    No file is opened for it: an item that has changed counts as what its old line says.
    """

    total: int = 0
    succeeded: int = 0
    bad: int = 0
    """Failed or blocked."""

    @property
    def left(self) -> int:
        """Without a line."""
        return self.total - self.succeeded - self.bad

    def take(self, admissions: Sequence[Admission], *, emulated: bool) -> None:
        """Count one batch; an emulated line counts for emulated runs only."""
        for admission in admissions:
            self.total += 1
            mark = admission.mark
            if mark is None or (mark.emulated and not emulated):
                continue
            if mark.status is Status.SUCCEEDED:
                self.succeeded += 1
            else:
                self.bad += 1


def next_batch(entries: Entries) -> list[Entry | Rejected]:
    """The next entries, as they stand in SOURCE; empty at its end."""
    ends_at = time.monotonic() + BATCH_SECONDS
    batch: list[Entry | Rejected] = []
    for entry in entries:
        if entry is not None:
            batch.append(entry)
        if batch and (len(batch) >= BATCH_ROWS or time.monotonic() >= ends_at):
            break
    return batch
