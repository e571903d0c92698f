"""The table of fault kinds; changes when a fault needs to know more of the request it strikes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.emulator.plan import Fault
from pipeline.emulator.reply import Reply

if TYPE_CHECKING:
    from pipeline.emulator.exchange import Exchange, Work
    from pipeline.emulator.files import FileStore


@dataclass(slots=True, kw_only=True)
class Strike:
    """One fault on one request: a kind answers in the work's place, before it, or after it."""

    fault: Fault
    exchange: "Exchange"
    work: "Work"
    files: "FileStore"
    now: float

    async def reply(self) -> Reply:
        """What the client gets."""
        return await KINDS[self.fault.kind].act(self)


Act = Callable[[Strike], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault does and where it can strike (anywhere where empty)."""

    act: Act
    routes: frozenset[str] = frozenset()


KINDS: dict[str, Kind] = {}

ANSWERS = frozenset({"generate", "stream"})
CHUNKS = frozenset({"upload_chunk", "finalize"})
FILE_CREATION = frozenset({"finalize", "upload_multipart"})


def kind(name: str, routes: frozenset[str] = frozenset()) -> Callable[[Act], Act]:
    """Register a fault under the name that plans use."""

    def register(act: Act) -> Act:
        KINDS[name] = Kind(act, routes)
        return act

    return register


def refusal(name: str, make: Callable[[Strike], Reply], routes: frozenset[str] = frozenset()) -> None:
    """Register a fault that only answers with an error."""

    async def act(strike: Strike) -> Reply:
        return make(strike)

    KINDS[name] = Kind(act, routes)
