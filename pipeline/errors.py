"""The whole error tree.

::

    PipelineError                 everything of ours
    |- UsageError                 exit 2: command line, configuration or manifest; nothing was sent
    |- RunLocked                  exit 4: another run holds the run folder
    |- StopRun                    the run ends early, after a drain
    |  |- StopEarly               exit 3: safe to run again later
    |  `- StopForHuman            exit 5: until somebody acts; the sentence says what to do
    |- ItemError                  this item ends here, with a Failure; the run goes on
    |- TryAgain                   this item runs once more in a later pass of the same run
    |- StorageFull                the project's file storage has no room
    `- Draining                   a drain began before the call was sent; the item is left for the next run

Foreign exceptions (aiohttp, sqlite3, Pillow ...) are translated where they arise and never travel inside.
"""

from enum import StrEnum
from typing import ClassVar, Literal

import msgspec

Stage = Literal["manifest", "upload", "activation", "generation"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item failed or was blocked: the ``error`` object of a result line."""

    stage: Stage
    kind: str
    message: str
    retryable: bool = False
    http_status: int | None = None
    api_status: str | None = None


class ExitCode:
    """Exit codes of the contract, so that a scheduler can decide without reading a log."""

    OK: ClassVar = 0
    SOME_FAILED: ClassVar = 1
    USAGE: ClassVar = 2
    STOPPED_EARLY: ClassVar = 3
    LOCKED: ClassVar = 4
    NEEDS_HUMAN: ClassVar = 5
    BUG: ClassVar = 70
    SIGHUP: ClassVar = 129
    SIGINT: ClassVar = 130
    SIGTERM: ClassVar = 143


class PipelineError(Exception):
    """Base of every error of ours; its text is one sentence for the user."""

    exit_code: ClassVar[int] = ExitCode.BUG


class UsageError(PipelineError):
    """The command line, the configuration or the manifest can't be used; nothing was sent."""

    exit_code = ExitCode.USAGE


class RunLocked(PipelineError):
    """Another run holds this run folder."""

    exit_code = ExitCode.LOCKED


class StopRun(PipelineError):
    """The run ends early: calls that are out end and are committed, no new one starts."""


class StopEarly(StopRun):
    """Stopped, and safe to run again later."""

    exit_code = ExitCode.STOPPED_EARLY


class StopForHuman(StopRun):
    """Stopped until a human acts; the text says what to do."""

    exit_code = ExitCode.NEEDS_HUMAN


class ItemError(PipelineError):
    """One item ends here; carries the ``Failure`` for its result line.

    ``attempts`` counts the generate calls it took; ``ambiguous`` tells that one may have been billed unanswered.
    """

    def __init__(self, failure: Failure, *, attempts: int = 0, ambiguous: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.attempts = attempts
        self.ambiguous = ambiguous


class Again(StrEnum):
    """Why an item goes through the graph once more."""

    FILE_GONE = "file_gone"
    """Its file vanished or would expire: upload it afresh."""
    NOT_ACTIVE = "not_active"
    """The service says that the file is not ACTIVE after all: wait for it again."""
    FRESH_UPLOAD = "fresh_upload"
    """A 400 without a reason: worth one try with a fresh upload."""
    STUCK = "stuck"
    """Its file never became ACTIVE, or failed without a reason: upload it afresh once."""


class TryAgain(PipelineError):
    """The item runs once more when this pass ends; ``failure`` is its line should that be once too often."""

    def __init__(
        self,
        reason: Again,
        failure: Failure,
        *,
        file_names: tuple[str, ...] = (),
        attempts: int = 0,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(failure.message)
        self.reason = reason
        self.failure = failure
        self.file_names = file_names
        self.attempts = attempts
        self.ambiguous = ambiguous


class StorageFull(PipelineError):
    """The service refused an upload: the project's file storage is full."""


class Draining(PipelineError):
    """A drain began before the call was sent."""
