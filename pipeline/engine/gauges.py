"""Reads how full every stage is at this moment, from what streams and rooms know anyway: nothing is counted for it."""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.engine.flow import ITEMS_WAITING_FOR_ACTIVE, Flow, Rooms
from pipeline.moment import Moment, Occupied, Pressure
from pipeline.streams import Receiver

Streams = Iterable[Receiver[Any]]


class Gauges:
    """``read`` is cheap enough for several times a second."""

    def __init__(
        self,
        flow: Flow,
        rooms: Rooms,
        *,
        uploads: int,
        concurrency: int,
        uploading: Callable[[], Pressure],
        generating: Callable[[], Pressure],
    ) -> None:
        self._flow = flow
        self._rooms = rooms
        self._uploads = uploads
        self._concurrency = concurrency
        self._uploading = uploading
        self._generating = generating

    def read(self) -> Moment:
        """This moment."""
        rooms = self._rooms
        arriving, activating, asking = (self._flow.queues.get(s, ()) for s in ("upload", "activation", "generation"))
        generating = self._generating()
        answered = rooms.results.waiting
        on_their_way, waiting_for_lane = rooms.upload.travelling()
        files_processing = min(ITEMS_WAITING_FOR_ACTIVE, rooms.activation.waiting)
        held = max(0, _busy(asking) - generating.in_flight - answered)
        return Moment(
            manifest=Occupied(workers=1, busy=int(_is_read(arriving))),
            upload=Occupied(workers=self._uploads, busy=on_their_way, waiting=_waiting(arriving) + waiting_for_lane),
            activation=Occupied(workers=ITEMS_WAITING_FOR_ACTIVE, busy=files_processing, waiting=_waiting(activating)),
            generation=Occupied(workers=self._concurrency, busy=generating.in_flight, waiting=_waiting(asking) + held),
            results=Occupied(workers=1, busy=min(1, answered), waiting=answered),
            uploading=self._uploading(),
            generating=generating,
            preparing=max(0, held - generating.waiting - generating.backing_off),
            bodies_waiting=rooms.generation.bodies_waiting,
            is_short_of_space=rooms.retention.is_short_of_space,
        )


def _is_read(arriving: Streams) -> bool:
    """Whether more of SOURCE is to come, and nothing but SOURCE itself holds it up."""
    seen = [stream.fill for stream in arriving]
    return any(fill.senders for fill in seen) and not any(fill.senders_waiting for fill in seen)


def _waiting(streams: Streams) -> int:
    return sum(fill.items + fill.senders_waiting for fill in (stream.fill for stream in streams))


def _busy(streams: Streams) -> int:
    """Workers that have an item: those at the end of the stream that don't wait for one."""
    return sum(fill.receivers - fill.receivers_waiting for fill in (stream.fill for stream in streams))
