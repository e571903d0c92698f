"""Clip offsets and frame rates: what a manifest may write, and what it means in seconds."""

import re
from typing import Final

import msgspec

from pipeline.errors import Failure, ItemError
from pipeline.limits import FPS_MAX

_CLOCK: Final = re.compile(r"(?:(\d{1,4}):)?(\d{1,6}):([0-5]\d(?:\.\d{1,9})?)", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_SECONDS_END: Final = 1e9
"""Numbers have as many digits as texts may; the service refuses what no Duration can hold, item after item."""


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a video that is looked at, and how often a second."""

    start_seconds: float | None = None
    end_seconds: float | None = None
    fps: float | None = None


def seconds(text: str | float) -> float:
    """``MM:SS``, ``H:MM:SS`` or seconds. Raises ``ValueError`` for anything else."""
    if isinstance(text, str):
        if match := _CLOCK.fullmatch(text.strip()):
            hours, minutes, rest = match.groups()
            if hours is not None and int(minutes) > 59:
                raise ValueError(f"{text!r} is not MM:SS, H:MM:SS or seconds")
            return int(hours or 0) * 3600.0 + int(minutes) * 60.0 + float(rest)
        if not _SECONDS.fullmatch(text.strip()):
            raise ValueError(f"{text!r} is not MM:SS, H:MM:SS or seconds")
    value = float(text)
    if not 0 <= value < _SECONDS_END:
        raise ValueError(f"{text!r} is not a time of a video in seconds")
    return value


def clip(start: str | float | None, end: str | float | None, fps: float | None) -> Clip:
    """The checked clip of a medium. Raises ``ItemError`` of kind bad_clip."""
    try:
        start_seconds = None if start is None else seconds(start)
        end_seconds = None if end is None else seconds(end)
    except ValueError as error:
        raise bad_clip(str(error)) from None
    if end_seconds is not None and end_seconds <= (start_seconds or 0.0):
        raise bad_clip(f"end ({end}) must lie after start ({start or 0})")
    if fps is not None and not 0 < fps <= FPS_MAX:
        raise bad_clip(f"fps must be above 0 and at most {FPS_MAX:g}, not {fps:g}")
    return Clip(start_seconds=start_seconds, end_seconds=end_seconds, fps=None if fps is None else float(fps))


def bad_clip(message: str) -> ItemError:
    """The failure of a clip that can't be."""
    return ItemError(Failure(stage="manifest", kind="bad_clip", message=message))


def clock_text(value_seconds: float | None) -> str | None:
    """``value_seconds`` as the API's guide writes times in prompts: ``MM:SS``, ``H:MM:SS`` from an hour on."""
    if value_seconds is None:
        return None
    whole, thousandths = divmod(round(value_seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    text = f"{hours}:{minutes_of_hour:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
    return f"{text}.{thousandths:03}".rstrip("0") if thousandths else text
