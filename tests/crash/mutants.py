"""Faults built into the commit path, which the power-loss explorer must find."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.results import durable
from pipeline.results.results_file import ResultsFile
from pipeline.results.stage import ResultsRoom


def acknowledged_before_synced() -> None:
    """The order reversed: written, marked and acknowledged first, synced last."""
    commit, sync = ResultsRoom._commit, durable.sync_data

    async def reversed_commit(self: ResultsRoom, batch: Any) -> None:
        put_off: list[int] = []
        durable.sync_data = put_off.append  # type: ignore[assignment]
        try:
            await commit(self, batch)
        finally:
            durable.sync_data = sync
        for fd in put_off:
            sync(fd)

    ResultsRoom._commit = reversed_commit  # type: ignore[method-assign]


def never_synced() -> None:
    """Lines are written, and left to the system."""

    def append(self: ResultsFile, data: bytes) -> None:
        durable.write_all(self._fd, data)
        self.end += len(data)

    ResultsFile._append = append  # type: ignore[method-assign]


def names_never_synced() -> None:
    """New and replaced names are left to the system."""

    def sync_folder(path: Path) -> None:
        pass

    durable.sync_folder = sync_folder


def compacted_without_sync() -> None:
    """The compacted file takes the name before its bytes are durable."""
    from pipeline.results import compaction

    class Careless:
        write_all = staticmethod(durable.write_all)
        sync_folder = staticmethod(durable.sync_folder)

        @staticmethod
        def sync_data(fd: int) -> None:
            pass

    compaction.durable = Careless  # type: ignore[assignment, attr-defined]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (acknowledged_before_synced, never_synced, names_never_synced, compacted_without_sync)
}
