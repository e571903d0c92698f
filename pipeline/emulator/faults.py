"""Which fault strikes which request; changes when a plan selects requests by something new.

The choice depends on the seed and on the request's own identity and attempt, never on the order in which concurrent
requests happen to arrive, so a plan strikes the same requests in every run. ``first``, ``after`` and ``until`` count
arrivals, and are as repeatable as the arrivals are.
"""

import hashlib
from collections import Counter

from pipeline.emulator.exchange import Exchange, Work
from pipeline.emulator.fault_kinds import KINDS, Strike
from pipeline.emulator.files import FileStore
from pipeline.emulator.plan import Fault, routes_of


class FaultPlan:
    """The plan's faults with what they have struck so far."""

    def __init__(self, faults: list[Fault], seed: int, started_at: float) -> None:
        self._faults = [(index, fault, _routes(fault)) for index, fault in enumerate(faults)]
        self._seed = seed
        self._started_at = started_at
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._requests: Counter[int] = Counter()
        self._hits: Counter[int] = Counter()

    def number_attempt(self, exchange: Exchange) -> None:
        """Count this attempt of the same request."""
        key = (exchange.routes[0], exchange.identity)
        self._attempts[key] += 1
        exchange.attempt = self._attempts[key]

    def strike(self, exchange: Exchange, work: Work, files: FileStore, now: float) -> Strike | None:
        """The fault that strikes, with what it does; None where the call goes through."""
        chosen: Strike | None = None
        for index, fault, routes in self._faults:
            if not ("*" in routes or routes.intersection(exchange.routes)):
                continue
            self._requests[index] += 1
            if chosen is None and self._hits_request(index, fault, exchange, now):
                self._hits[index] += 1
                chosen = Strike(fault=fault, exchange=exchange, work=work, files=files, now=now)
        return chosen

    def _hits_request(self, index: int, fault: Fault, exchange: Exchange, now: float) -> bool:
        elapsed_seconds = now - self._started_at
        count = self._requests[index]
        return (
            (fault.first is None or self._hits[index] < fault.first)
            and fault.after < count
            and (fault.until is None or count <= fault.until)
            and fault.after_seconds <= elapsed_seconds
            and (fault.until_seconds is None or elapsed_seconds < fault.until_seconds)
            and _is_attempt(fault.attempt, exchange.attempt)
            and (not fault.match or any(fault.match in text for text in exchange.match_texts))
            and draw(self._seed, index, exchange.routes[0], exchange.identity, exchange.attempt) < fault.rate
        )


def draw(seed: int, index: int, route: str, identity: str, attempt: int) -> float:
    """A number in [0, 1) that only depends on its arguments."""
    text = f"{seed}\0{index}\0{route}\0{identity}\0{attempt}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest()) / 2**56


def _is_attempt(wanted: int | list[int], attempt: int) -> bool:
    return not wanted or attempt == wanted or (isinstance(wanted, list) and attempt in wanted)


def _routes(fault: Fault) -> frozenset[str]:
    return frozenset(routes_of(fault)) or KINDS[fault.kind].routes or frozenset({"*"})
