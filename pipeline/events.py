"""What can be observed of a run. An observer watches; it never acts and never raises."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every event."""


class ItemAdmitted(Event, frozen=True, kw_only=True):
    """The manifest room has decided about an item; ``decision`` is one of ``manifest.decide.Decision``."""

    key: str
    decision: str


class SourceRead(Event, frozen=True, kw_only=True):
    """SOURCE was read to its end: ``total`` items, and files passed over by suffix."""

    total: int
    skipped: dict[str, int]


class ItemState(Event, frozen=True, kw_only=True):
    """An item entered a room; for ``--verbose``."""

    key: str
    state: str


class BytesUploaded(Event, frozen=True, kw_only=True):
    """The File API took ``size_bytes`` more."""

    size_bytes: int


class CallSent(Event, frozen=True, kw_only=True):
    """A call went out."""

    route: str
    subject: str


class CallEnded(Event, frozen=True, kw_only=True):
    """A call was answered or lost; ``status`` is the HTTP status, 0 where there was none."""

    route: str
    subject: str
    status: int
    seconds: float


class Retrying(Event, frozen=True, kw_only=True):
    """A call will be sent again after ``wait_seconds``; ``route`` is the stage of an item that goes round again."""

    route: str
    subject: str
    cause: str
    wait_seconds: float
    message: str


class GateClosed(Event, frozen=True, kw_only=True):
    """No call of this kind starts for ``wait_seconds``: a quota or an outage."""

    cause: str
    wait_seconds: float
    message: str


class Refused(Event, frozen=True, kw_only=True):
    """A 429; ``quotas`` are those it names, such as ``requests_per_minute``."""

    route: str
    model: str
    quotas: tuple[str, ...]


class LimitLearnt(Event, frozen=True, kw_only=True):
    """A quota of ``model`` was learnt, or learnt anew; ``is_told``: the service named it, else it was found out."""

    model: str
    quota: str
    per_minute: int
    is_told: bool


class FileDeleted(Event, frozen=True, kw_only=True):
    """A remote file was freed."""

    name: str
    size_bytes: int


class ItemCommitted(Event, frozen=True, kw_only=True):
    """An item's line is durable."""

    key: str
    status: str
    stage: str | None
    kind: str | None
    message: str | None
    attempts: int
    prompt_tokens: int
    output_tokens: int
    thoughts_tokens: int
    cached_tokens: int
    total_tokens: int
    seconds: float


class Warned(Event, frozen=True, kw_only=True):
    """Something the user should know, once, and the run goes on."""

    message: str


class DrainBegan(Event, frozen=True, kw_only=True):
    """No new call starts; ``reason`` says why."""

    reason: str


OFTEN: Final[frozenset[type[Event]]] = frozenset(
    {BytesUploaded, CallEnded, CallSent, ItemAdmitted, ItemCommitted, ItemState}
)
"""What happens for every item, call or chunk; all else is rare."""


Listener = Callable[[Any], None]
"""Is told of events of one type."""


class Observer(Protocol):
    """Is told of everything that happens, on the event loop's thread; must return at once.

    One that has a method ``listener``, of an event's type, is told by what that returns, and not at all where it
    returns None.
    """

    def notify(self, event: Event) -> None:
        """Take notice of ``event``."""
        ...


class Listening:
    """The base of observers that hear of some kinds of events, each by a method of its own."""

    def __init__(self, listeners: Mapping[type[Event], Listener]) -> None:
        self._listeners = listeners

    def listener(self, kind: type[Event]) -> Listener | None:
        """What is to be told of events of this kind."""
        return self._listeners.get(kind)

    def notify(self, event: Event) -> None:
        """Take notice of ``event``."""
        if listener := self.listener(type(event)):
            listener(event)


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)
        self._listeners: dict[type[Event], list[Listener]] = {}

    def add(self, observer: Observer) -> None:
        """Let one more watch from now on."""
        self._observers.append(observer)
        self._listeners.clear()

    def notify(self, event: Event) -> None:
        """Tell each that wants to hear of such an event, in turn."""
        listeners = self._listeners.get(type(event))
        if listeners is None:
            heard_by = (_listener(observer, type(event)) for observer in self._observers)
            listeners = self._listeners[type(event)] = [listener for listener in heard_by if listener]
        for listener in listeners:
            listener(event)


def _listener(observer: Observer, kind: type[Event]) -> Listener | None:
    listener_of: Callable[[type[Event]], Listener | None] | None = getattr(observer, "listener", None)
    return observer.notify if listener_of is None else listener_of(kind)
