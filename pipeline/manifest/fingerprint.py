"""What makes an item the same item again: versioned SHA-256 values that later releases compute alike.

A change in here makes every user pay again for every item; the golden table in the tests guards it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from pipeline.records import Json, Media

_VERSION: Final = "v1"
_CANONICAL: Final = msgspec.json.Encoder(order="sorted")


def fingerprint(
    *,
    media: Sequence[Media],
    prompt: str,
    labels: Sequence[str] = (),
    system: str | None = None,
    model: str,
    generation: Mapping[str, Json],
    safety: Mapping[str, str],
    schema: Mapping[str, Json] | None = None,
) -> str:
    """``v1:`` and 64 hex digits over all that the answer depends on, and nothing else (see the contract)."""
    payload = [
        [
            # the last place is for how the medium was prepared before it was sent
            [m.sha256, m.mime_type, _float(m.start_seconds), _float(m.end_seconds), _float(m.fps), None]
            for m in media
        ],
        prompt,
        list(labels),
        system,
        bare_model(model),
        generation,
        safety,
        schema,
    ]
    return f"{_VERSION}:{sha256(_CANONICAL.encode(payload)).hexdigest()}"


def media_sha256(media: Sequence[Media]) -> str:
    """The hash of the only medium, else one over the media's hashes in order: equal while the media are the same."""
    if len(media) == 1:
        return media[0].sha256
    return sha256("\n".join(m.sha256 for m in media).encode()).hexdigest()


@lru_cache(maxsize=256)
def prompt_sha256(prompt: str) -> str:
    """The hash of a rendered prompt, as result lines give it."""
    return sha256(prompt.encode()).hexdigest()


def bare_model(model: str) -> str:
    """``model`` without the API's ``models/``."""
    return model.removeprefix("models/")


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
