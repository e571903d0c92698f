"""What an answer is before any byte of it is sent; changes when an answer needs another property."""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

JSON_TYPE = "application/json; charset=UTF-8"
TEXT_TYPE = "text/plain; charset=utf-8"
HTML_TYPE = "text/html; charset=UTF-8"

Delivery = Literal["whole", "pieces", "drip", "cut_content_length", "cut_chunked", "cut_close", "cut_reset"]
"""How the bytes travel; everything but ``whole`` and ``pieces`` is a fault."""


@dataclass(slots=True)
class Reply:
    """One answer: JSON while ``payload`` is set, else the bytes of ``body``."""

    status: int = 200
    payload: Any = None
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = "whole"
    pieces: tuple[bytes, ...] = ()

    def content(self) -> bytes:
        """The body as it is sent."""
        if self.pieces:
            return b"".join(self.pieces)
        return self.body if self.payload is None else msgspec.json.encode(self.payload)


class Refusal(Exception):
    """The request is answered with an error; raised wherever the reason is found."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Reset(Exception):
    """The connection is to be reset (TCP RST) instead of answered."""
