"""The drain: from when it begins no new call starts, waits end at once, and calls that are out may end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyio import CancelScope, Event

from pipeline.errors import Draining, ExitCode

_RANKS = {ExitCode.BUG: 0, ExitCode.USAGE: 1, ExitCode.NEEDS_HUMAN: 1, ExitCode.STOPPED_EARLY: 3}
_RANK_OF_SIGNALS = 2


class Drain:
    """One per run. Begun by a signal, a deadline or a ``StopRun``; several causes may come together.

    ``exit_code`` is the contract's first that holds of the causes: 70, then 2 or 5, then a signal's, then 3.
    """

    def __init__(self, on_begin: Callable[[str], None] = lambda _reason: None) -> None:
        self._on_begin = on_begin
        self._scopes: set[CancelScope] = set()
        self._causes: list[tuple[int, str]] = []
        self._begun = Event()

    @property
    def begun(self) -> bool:
        """Whether it has begun."""
        return bool(self._causes)

    @property
    def exit_code(self) -> int | None:
        """The exit code that its causes ask for, None before it began."""
        cause = self._first()
        return cause[0] if cause else None

    @property
    def reason(self) -> str | None:
        """One sentence, of the cause that gave the exit code."""
        cause = self._first()
        return cause[1] if cause else None

    def begin(self, exit_code: int, reason: str) -> None:
        """Begin, or add a cause to a drain that has begun."""
        first = not self._causes
        self._causes.append((exit_code, reason))
        if first:
            self._begun.set()
            self._on_begin(reason)
            for scope in list(self._scopes):
                scope.cancel()

    async def wait(self) -> None:
        """Return when it has begun."""
        await self._begun.wait()

    def check(self) -> None:
        """Raises ``Draining`` if it has begun: for what must not be started any more, and does not wait."""
        if self._causes:
            raise Draining("a drain has begun")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Mark a wait that ends when the drain begins. Raises ``Draining`` then, and at once if it has begun."""
        self.check()
        with CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise Draining("a drain has begun")

    def _first(self) -> tuple[int, str] | None:
        return min(self._causes, key=lambda cause: _RANKS.get(cause[0], _RANK_OF_SIGNALS), default=None)
