"""Bounds the bytes of all request bodies that are being built or sent, whatever the number of workers."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class BodyBudget:
    """A semaphore counted in bytes, first come first served; one body larger than the whole budget goes alone."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @property
    def waiting(self) -> int:
        """Bodies that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold ``size_bytes`` while the context is open."""
        held_bytes = min(size_bytes, self._total_bytes)
        await self._acquire(held_bytes)
        try:
            yield
        finally:
            self._free_bytes += held_bytes
            self._admit()

    async def _acquire(self, size_bytes: int) -> None:
        if not self._waiting and size_bytes <= self._free_bytes:
            self._free_bytes -= size_bytes
            return
        turn = (size_bytes, anyio.Event())
        self._waiting.append(turn)
        try:
            await turn[1].wait()
        except BaseException:
            if turn[1].is_set():
                self._free_bytes += size_bytes
            else:
                self._waiting.remove(turn)
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            size_bytes, turn = self._waiting.popleft()
            self._free_bytes -= size_bytes
            turn.set()
