"""What one moment of a run looks like: read where the work is done, judged by the report."""

from enum import StrEnum

import msgspec


class Hold(StrEnum):
    """What holds calls back that could go out."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    RPM = "rpm"
    """The user's own cap, as ``TPM`` is."""
    TPM = "tpm"
    REFUSALS = "refusals"
    """The gate that a 429 has closed, where no quota is known to be counted."""
    SLOW_START = "slow_start"
    OVERLOAD = "overload"
    """Fewer calls at once than allowed, because the service failed under more."""
    CONCURRENCY = "concurrency"
    OUTAGE = "outage"


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """How one family of calls stands before its governor."""

    in_flight: int = 0
    waiting: int = 0
    held_by: Hold | None = None
    """What the calls that wait wait for; None where none waits."""
    model: str = ""
    """Whom the most of them want to ask."""
    backing_off: int = 0
    """Calls that will be sent again after a while, because the service or the network failed."""
    slots: int = 0
    """Most calls out at once now."""


class Occupied(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: workers that have something to do, and items that wait before it."""

    workers: int
    busy: int = 0
    waiting: int = 0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Every stage at one moment. Generation is busy with the calls that are out; an outcome that waits for the disk
    waits before results, and holds its worker of generation."""

    manifest: Occupied
    upload: Occupied
    activation: Occupied
    generation: Occupied
    results: Occupied
    generating: Pressure = Pressure()
    uploading: Pressure = Pressure()
    preparing: int = 0
    """Workers of generation that are neither out, nor waiting to be, nor waiting for the disk."""
    bodies_waiting: int = 0
    """Request bodies that wait for memory."""
    is_short_of_space: bool = False
    """Whether an upload waits for space in the project's storage."""
