"""Who is told of what."""

from pipeline.events import BytesUploaded, Event, ItemState, Listener, Observers, Warned


class Everything:
    """Wants to hear of all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)


class Uploads(Everything):
    """Wants to hear of bytes alone."""

    def listener(self, kind: type[Event]) -> Listener | None:
        return self.notify if kind is BytesUploaded else None


def test_each_is_told_of_what_it_wants_to_hear_of() -> None:
    """In the order in which they came; who comes later is told of what happens from then on."""
    everything, uploads, later = Everything(), Uploads(), Uploads()
    observers = Observers(everything, uploads)
    events = [BytesUploaded(size_bytes=1), ItemState(key="a", state="uploading"), Warned(message="b")]
    for event in events:
        observers.notify(event)
    observers.add(later)
    for event in events:
        observers.notify(event)
    assert everything.events == events * 2
    assert uploads.events == events[:1] * 2
    assert later.events == events[:1]
