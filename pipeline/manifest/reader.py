"""Pulls candidates from a SOURCE in batches, in a worker thread: as many as little time allows."""

import time
from collections import deque
from typing import Final

from pipeline.manifest.assemble import Assembler
from pipeline.manifest.entry import Entry
from pipeline.manifest.source import Source
from pipeline.media.identify import Identifier
from pipeline.records import Item, Rejected

BATCH_ROWS: Final = 1000
BATCH_SECONDS: Final = 0.05
"""A batch ends when this much work has gone into it, so that a large file holds back few others."""
FIRST_BATCH_SECONDS: Final = 0.005
"""Of the first batch, for which all rooms wait; each may take twice as long as the one before."""
BATCH_FILES: Final = 4096
"""Media of the rows read ahead of the batch."""


class Reader:
    """One reading of ``source``, from its start to its end."""

    def __init__(self, source: Source, assembler: Assembler, identifier: Identifier) -> None:
        self._entries = source.entries()
        self._assembler = assembler
        self._identifier = identifier
        self._ahead: deque[Entry | Rejected] = deque()
        self._batch_seconds = FIRST_BATCH_SECONDS

    def next_batch(self) -> list[Item | Rejected]:
        """The next candidates in order, at least one; empty at the end of SOURCE."""
        if not self._ahead:
            self._read_ahead()
        ends_at = time.monotonic() + self._batch_seconds
        self._batch_seconds = min(2 * self._batch_seconds, BATCH_SECONDS)
        batch: list[Item | Rejected] = []
        while self._ahead and (not batch or time.monotonic() < ends_at):
            entry = self._ahead.popleft()
            batch.append(entry if isinstance(entry, Rejected) else self._assembler.assemble(entry))
        return batch

    def _read_ahead(self) -> None:
        """Read rows, and look up together what is known of their files."""
        ends_at = time.monotonic() + BATCH_SECONDS
        files: list[tuple[str, str]] = []
        for entry in self._entries:
            if entry is not None:
                self._ahead.append(entry)
            if isinstance(entry, Entry):
                files.extend((ref.location, ref.path) for ref in entry.media)
            full = len(self._ahead) >= BATCH_ROWS or len(files) >= BATCH_FILES
            if self._ahead and (entry is None or full or time.monotonic() >= ends_at):
                break
        self._identifier.expect(files)

    def close(self) -> None:
        """Close the files of SOURCE."""
        self._identifier.close()
        self._entries.close()
